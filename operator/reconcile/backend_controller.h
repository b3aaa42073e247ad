#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "operator/engine/node_operations.h"
#include "operator/kube/events.h"
#include "operator/reconcile/backend_decision.h"
#include "operator/reconcile/capacity.h"
#include "operator/reconcile/lanes.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

// StorageBackends: parses and validates the spec, makes the driver, probes, keeps CSIDriver, StorageClasses
// and CSIStorageCapacity objects, and says in the conditions what a person must know. Each backend has a lane
// of its own, so that a storage system that hangs holds up nobody else's.
//
// Order within one reconcile: driver -> probe -> capacity -> CSIDriver -> classes -> status. Classes come
// after capacity, since the scheduler places nothing on a class whose capacity is not published.
class BackendController {
 public:
  BackendController(World& world, engine::NodeOperations& nodes, engine::IntentStore& intents);

  // Called when creates on a backend became possible, or its spec changed: pending claims are looked at
  // again.
  void on_usable(std::function<void(const std::string& backend)> usable) { usable_ = std::move(usable); }
  void start(const base::Context& context);
  void stop() { controller_.stop(); }
  // OK once every StorageBackend was looked at once: the table of backends is complete.
  absl::Status settled() const;

 private:
  // What is remembered of a backend between reconciles.
  struct Memory {
    std::shared_ptr<const engine::BackendSpec> spec;  // the last valid one
    std::shared_ptr<drivers::Driver> driver;
    std::shared_ptr<engine::Intents> intents;
    std::string system_id;
    absl::Status probe = absl::UnavailableError("not probed yet");
    base::Clock::Monotonic probed_at{};
    absl::Status ready = absl::UnavailableError("not looked at yet");
    uint64_t generation = 0;  // of the spec that was published last
    bool published = false;   // in world.backends
  };

  kube::Outcome reconcile(const base::Context& context, const std::string& name);
  kube::Outcome reconcile_deleted(const base::Context& context, const std::string& name,
                                  const kube::BackendObject& object, BackendFacts facts);
  absl::Status prepare(const base::Context& context, const kube::BackendObject& object,
                       const drivers::Kind& kind, Memory& memory);
  void probe(const base::Context& context, const drivers::Kind& kind, Memory& memory);
  const drivers::Kind* kind_named(const std::string& name) const;
  std::vector<NodeView> node_views(const std::string& backend) const;
  void publish_backend(const kube::BackendObject& object, Memory& memory, const absl::Status& ready);
  absl::Status keep_finalizer(const base::Context& context, const kube::BackendObject& object, bool wanted);
  absl::Status write_status(const base::Context& context, const kube::BackendObject& object,
                            const BackendVerdict& verdict, const BackendFacts& facts, const Memory& memory,
                            const drivers::Kind* kind);
  Memory& memory(const std::string& name);
  void enqueue_later(const std::string& name);

  World& world_;
  engine::NodeOperations& nodes_;
  engine::IntentStore& intent_store_;
  CapacityPublisher capacity_;
  std::function<void(const std::string&)> usable_;
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Memory>> memories_;  // an entry is used by its own lane only
  std::map<std::string, bool> seen_;                         // reconciled at least once
  LanedController controller_;
};

}  // namespace collage::reconcile
