#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/context.h"
#include "operator/engine/backends.h"
#include "operator/reconcile/backend_decision.h"
#include "operator/reconcile/corrections.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

// Room in one topology segment of a backend; segment {} is the whole cluster but the nodes without reach.
struct SegmentCapacity {
  drivers::Topology segment;
  drivers::Capacity capacity;
  std::vector<std::string> without_reach = {};  // hostnames (label kubernetes.io/hostname), sorted
};

// What is left under the backend's own limits: the smaller of both wins.
drivers::Capacity under_limits(drivers::Capacity capacity, const engine::Limits& limits,
                               const engine::Usage::Total& used);

// Is `now` different enough from what was published to be worth a write? More than a hundredth of the total,
// or from or to full.
bool worth_publishing(const drivers::Capacity& published, const drivers::Capacity& now);

// Publishes CSIStorageCapacity objects, one for each class of a backend and each segment, so that the
// scheduler does not choose a node whose storage is full. Nothing is written when little changed; what
// somebody else changed or deleted is set right as soon as the watch tells.
class CapacityPublisher {
 public:
  explicit CapacityPublisher(World& world) : world_(world) {}

  // The room of each segment: from the driver, or as the nodes measured it where only they reach the storage;
  // a kind that cannot say answers its limit. Without an answer yet the list is empty.
  absl::StatusOr<std::vector<SegmentCapacity>> measure(const base::Context& context,
                                                       const engine::Backend& backend,
                                                       const drivers::Kind& kind,
                                                       const std::vector<NodeView>& nodes) const;
  absl::Status publish(const base::Context& context, const engine::Backend& backend,
                       const std::vector<SegmentCapacity>& segments, Settling& settling);
  absl::Status remove(const base::Context& context, const std::string& backend);

 private:
  absl::Status remove_others(const base::Context& context, const std::string& backend,
                             const std::set<std::string>& wanted);

  World& world_;
  std::mutex mutex_;
  std::map<std::string, std::string> written_;  // object name -> resourceVersion of our last write
};

}  // namespace collage::reconcile
