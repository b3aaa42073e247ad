#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/context.h"
#include "operator/engine/backends.h"
#include "operator/reconcile/backend_decision.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

// Room in one topology segment of a backend; segment {} is the whole cluster.
struct SegmentCapacity {
  drivers::Topology segment;
  drivers::Capacity capacity;
};

// What is left under the backend's own limits: the smaller of both wins.
drivers::Capacity under_limits(drivers::Capacity capacity, const engine::Limits& limits,
                               const engine::Usage::Total& used);

// Is `now` different enough from what was published to be worth a write? More than a hundredth of the total,
// or from or to full.
bool worth_publishing(const drivers::Capacity& published, const drivers::Capacity& now);

// Publishes CSIStorageCapacity objects, one for each class of a backend and each segment, so that the
// scheduler does not choose a node whose storage is full. Keeps what it wrote in memory (read once at start),
// so that nothing is written when little changed.
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
                       const std::vector<SegmentCapacity>& segments);
  absl::Status remove(const base::Context& context, const std::string& backend);

 private:
  struct Published {
    std::string backend;
    drivers::Capacity capacity;
  };
  absl::Status load(const base::Context& context);

  World& world_;
  std::mutex mutex_;
  bool loaded_ = false;
  base::Clock::Monotonic loaded_at_{};
  std::map<std::string, Published> published_;  // by object name
};

}  // namespace collage::reconcile
