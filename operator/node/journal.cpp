#include "operator/node/journal.h"

#include <sys/stat.h>

#include <cctype>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/status.h"

namespace collage::node {
namespace {

constexpr char kSuffix[] = ".json";
constexpr char kTemporarySuffix[] = ".tmp";  // base::write_file_atomic's
constexpr size_t kLongestName = 200;

std::string escape(const std::string& handle) {
  std::string name;
  for (const unsigned char c : handle) {
    if (std::isalnum(c) != 0 || c == '-' || c == '_' || (c == '.' && !name.empty())) {
      name += static_cast<char>(c);
    } else {
      char hex[4];
      std::snprintf(hex, sizeof hex, "%%%02X", c);
      name += hex;
    }
  }
  if (name.size() <= kLongestName) return name;
  return absl::StrCat(name.substr(0, 100), "-", base::sha256_hex(handle));
}

const base::Counter& write_failures_total() {
  static const base::Counter counter("collage_node_journal_write_failures_total",
                                     "Journal files that could not be written.");
  return counter;
}

absl::StatusOr<VolumeRecord> read_record(const std::string& path) {
  COLLAGE_ASSIGN_OR_RETURN(const std::string text, base::read_file(path));
  COLLAGE_ASSIGN_OR_RETURN(const base::Json json, base::parse_json(text));
  return record_from_json(json);
}

}  // namespace

Journal::Journal(std::string directory, Hook hook)
    : directory_(std::move(directory)), hook_(std::move(hook)) {}

std::string Journal::path_of(const std::string& handle) const {
  return absl::StrCat(directory_, "/", escape(handle), kSuffix);
}

absl::StatusOr<Journal::Loaded> Journal::load() {
  COLLAGE_RETURN_IF_ERROR(base::make_directories(directory_, 0700));
  COLLAGE_ASSIGN_OR_RETURN(const std::vector<std::string> names, base::list_directory(directory_));
  Loaded loaded;
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(directory_, "/", name);
    // Of a write that was cut short. One that cannot be removed harms nobody.
    if (name.ends_with(kTemporarySuffix)) (void)base::remove_file(path);
    if (!name.ends_with(kSuffix)) continue;
    absl::StatusOr<VolumeRecord> record = read_record(path);
    if (record.ok() && path_of(record->handle) != path)
      record = absl::InvalidArgumentError("the handle is not that of the file's name");
    if (record.ok()) {
      loaded.records.push_back(*std::move(record));
      continue;
    }
    const std::string aside =
        absl::StrCat(path, absl::IsUnimplemented(record.status()) ? ".newer" : ".corrupt");
    base::log::error(base::Context(), "a journal file cannot be read and is set aside",
                     {{"path", path}, {"as", aside}, {"error", record.status()}});
    loaded.set_aside.push_back(aside);
    absl::Status moved = std::rename(path.c_str(), aside.c_str()) == 0
                             ? base::fsync_directory(directory_)
                             : base::errno_status(errno, absl::StrCat("rename ", path));
    // On a disk that can only be read it stays where it is, and counts as set aside all the same.
    if (!moved.ok())
      base::log::warning(base::Context(), "a journal file stays in place though it cannot be read",
                         {{"path", path}, {"error", moved}});
  }
  return loaded;
}

absl::Status Journal::write(const VolumeRecord& record) {
  const std::string path = path_of(record.handle);
  COLLAGE_ASSIGN_OR_RETURN(const base::Json json, to_json(record));
  absl::Status status = hook_ ? hook_(path) : absl::OkStatus();
  if (status.ok()) status = base::write_file_atomic(path, base::dump_json(json), 0600);
  // Never final: the call is made again, and the disk may have room by then.
  if (status.ok()) return status;
  write_failures_total().add();
  return absl::UnavailableError(absl::StrCat(
      "nothing is staged or published while the agent's state directory cannot be written: make room below ",
      directory_, ", and see that it is not read-only (", std::string(status.message()), ")"));
}

absl::Status Journal::remove(const std::string& handle) {
  const std::string path = path_of(handle);
  if (hook_) COLLAGE_RETURN_IF_ERROR(hook_(path));
  return base::remove_file(path);
}

}  // namespace collage::node
