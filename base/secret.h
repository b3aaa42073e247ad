#pragma once

#include <map>
#include <ostream>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace collage::base {

// A value that must never reach a log, an event, an argument list or a file that others read.
// Printed in any way it is "***"; reveal() is the one way to the bytes, easy to search for.
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string value) : value_(std::move(value)) {}
  const std::string& reveal() const { return value_; }
  bool empty() const { return value_.empty(); }
  friend bool operator==(const Secret&, const Secret&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Secret& secret) {
    return out << (secret.empty() ? "" : "***");
  }

 private:
  std::string value_;
};

using Secrets = std::map<std::string, Secret>;

// Somebody else's words with every value of these made "***": what goes into a condition, an event or a log.
absl::Status without_secrets(const absl::Status& status, const Secrets& secrets);

}  // namespace collage::base
