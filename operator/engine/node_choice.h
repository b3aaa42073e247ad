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
// running on a node binds its volume to that node: another write, which undoes it perhaps, must come behind
// it. The same write again is bound to no node, since it is the very write that may be running there: done
// twice it has the effect of one (driver.h).
class NodeChoice {
 public:
  // `ready` in the order to try them.
  std::vector<std::string> order(std::vector<std::string> ready) const;
  bool is_silent(const std::string& node) const;
  // Where a write of this volume may be running; "" when none is.
  std::string busy_at(const std::string& volume) const;
  // The nodes where a write of this volume may be running, unless all of them are this very `call`.
  std::set<std::string> bound_to(const std::string& volume, const std::string& call) const;
  // What a call ended with. volume "": a read.
  void ended(const std::string& node, const std::string& volume, const std::string& call,
             const absl::Status& status);

 private:
  // Beyond this many the first ones are forgotten: then only the drivers' own idempotence is left.
  static constexpr size_t kMaxBusy = 10'000;

  struct Busy {
    std::string call;  // "": several
    std::set<std::string> nodes;
  };

  mutable std::mutex mutex_;
  std::string last_good_;
  std::set<std::string> silent_;
  std::map<std::string, Busy> busy_;  // by volume
};

}  // namespace collage::engine
