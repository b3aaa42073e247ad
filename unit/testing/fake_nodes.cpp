#include "unit/testing/fake_nodes.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace collage::testing {

absl::StatusOr<base::Json> FakeNodes::run(const base::Context& context, const std::string& node,
                                          const std::string&, drivers::Verb verb, const base::Json& arguments,
                                          std::chrono::nanoseconds) {
  if (verb == drivers::Verb::kHolds && before_holds_) before_holds_();
  std::shared_ptr<drivers::Driver> driver;
  {
    std::lock_guard lock(mutex_);
    calls_.push_back({node, verb});
    if (verb == drivers::Verb::kHolds) {
      const auto held = holds_.find(node);
      if (held == holds_.end()) return absl::UnavailableError(absl::StrCat("node ", node, " runs no agent"));
      return base::Json{{"held", held->second}, {"where", held->second ? "/stage" : ""}, {"bootID", "boot"}};
    }
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
