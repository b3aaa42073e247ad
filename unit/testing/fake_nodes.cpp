#include "unit/testing/fake_nodes.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace collage::testing {

absl::StatusOr<base::Json> FakeNodes::run(const base::Context& context, const std::string& node,
                                          const std::string&, drivers::Verb verb,
                                          const base::Json& arguments) {
  std::shared_ptr<drivers::Driver> driver;
  {
    std::lock_guard lock(mutex_);
    calls_.push_back({node, verb});
    const auto found = nodes_.find(node);
    if (found == nodes_.end()) return absl::UnavailableError(absl::StrCat("node ", node, " runs no agent"));
    driver = found->second.driver;
  }
  if (before_) {
    if (absl::Status status = before_(node, verb); !status.ok()) return status;
  }
  absl::StatusOr<base::Json> result = drivers::carry_out(context, *driver, verb, arguments);
  if (after_) {
    if (absl::Status status = after_(node, verb); !status.ok()) return status;
  }
  return result;
}

}  // namespace collage::testing
