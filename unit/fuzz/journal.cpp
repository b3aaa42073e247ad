#include "operator/node/journal.h"

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "unit/fuzz/targets.h"

namespace collage::fuzz {

void journal(std::string_view input) {
  const auto json = base::parse_json(input);
  if (!json.ok()) return;
  const auto record = node::record_from_json(*json);
  if (!record.ok()) {
    const bool known = absl::IsInvalidArgument(record.status()) || absl::IsUnimplemented(record.status());
    require(known, "a record that cannot be read is set aside as corrupt or newer");
    return;
  }
  const base::Json* inode = base::find(*json, "/reached/fileInode");
  if (inode != nullptr && inode->is_number_unsigned())
    require(record->reached.file_inode == inode->get<uint64_t>(), "a number is read whole");
  // What was read is kept by the next write.
  const auto written = node::to_json(*record);
  require(written.ok(), "a record that was read can be written");
  const auto again = node::record_from_json(*base::parse_json(base::dump_json(*written)));
  require(again.ok(), "and read again");
  require(base::dump_json(*node::to_json(*again)) == base::dump_json(*written), "as the same");
}

}  // namespace collage::fuzz
