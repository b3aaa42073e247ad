#pragma once

#include <atomic>
#include <compare>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "unit/reconcile/cluster.h"
#include "unit/testing/fake_nodes.h"

namespace collage::testing {

// One thing that an operator does and others can see: the n-th (from 1) of its kind since the cutter looks.
// kind: "create persistentvolumes", "patch volumeattachments/status", "driver create".
struct Act {
  std::string kind;
  int nth = 0;
  friend auto operator<=>(const Act&, const Act&) = default;
};

enum class Side { kBefore, kAfter };  // of the act's effect
std::string to_string(const Act& act, Side side);

// Watches every write to the API server and every call of the driver that a cluster's operator makes. Counts
// them, or kills the operator at one of them: before it is sent, or after its effect and before its answer.
class Cutter {
 public:
  explicit Cutter(Cluster& cluster);  // sees the calls of the cluster's own driver
  void watch(FakeNodes& nodes);       // and those that go through nodes
  // The driver is called by nodes, which answer in StorageNodes: both go on when the operator is killed
  // there.
  void nodes_go_on() { nodes_go_on_ = true; }

  // Counts from now on; nothing is cut.
  void record();
  std::vector<Act> acts() const;  // since record(), in their order
  std::set<std::string> kinds() const;

  // Counts from now on; the operator dies at `act`. An act of any kind when its kind is "".
  void cut(const Act& act, Side side);
  bool cut_awaited() const;  // the operator has not come to it

 private:
  enum class Fate { kGoOn, kDieBefore, kDieAfter };
  Fate begins(const std::string& kind);
  absl::Status driver_begins(drivers::Verb verb);
  absl::Status driver_ends(drivers::Verb verb);

  Cluster& cluster_;
  std::atomic<bool> nodes_go_on_ = false;
  mutable std::mutex mutex_;
  std::map<std::string, int> counts_;
  std::vector<Act> acts_;
  bool armed_ = false;
  Act at_;
  Side side_ = Side::kBefore;
  std::string dies_after_;  // the driver's call under way whose answer is lost
};

}  // namespace collage::testing
