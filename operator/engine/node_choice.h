#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace collage::engine {

// Which node is asked, from what became of earlier calls. Thread safe.
//
// The node that answered last comes first, one that did not answer comes last. A write that may still be
// running on a node goes to the same node again, so that two nodes never work on one volume at the same time.
class NodeChoice {
 public:
  // `ready` in the order to try them.
  std::vector<std::string> order(std::vector<std::string> ready) const;
  // Where a write of this volume may be running; "" when none is.
  std::string busy_at(const std::string& volume) const;
  // What a call ended with. volume "": a read.
  void ended(const std::string& node, const std::string& volume, const absl::Status& status);

 private:
  // Beyond this many the first ones are forgotten: then only the drivers' own idempotence is left.
  static constexpr size_t kMaxBusy = 10'000;

  mutable std::mutex mutex_;
  std::string last_good_;
  std::set<std::string> silent_;
  std::map<std::string, std::string> busy_;  // volume -> node
};

}  // namespace collage::engine
