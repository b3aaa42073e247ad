#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "operator/engine/node_operations.h"
#include "operator/kube/events.h"
#include "operator/reconcile/backend_decision.h"
#include "operator/reconcile/capacity.h"
#include "operator/reconcile/credentials.h"
#include "operator/reconcile/lanes.h"
#include "operator/reconcile/survey.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

// StorageBackends: parses and validates the spec, makes the driver, probes, keeps CSIDriver, StorageClasses
// and CSIStorageCapacity objects, and says in the conditions what a person must know. Each backend has a lane
// of its own, so that a storage system that hangs holds up nobody else's.
//
// Order within one reconcile: driver -> probe -> capacity -> CSIDriver -> classes -> status. Classes come
// after capacity, since the scheduler places nothing on a class whose capacity is not published.
//
// A changed Secret makes a second driver, which is probed before it takes the place of the first; one that
// fails is thrown away, and the condition CredentialsValid says why. Calls under way hold the driver that
// they began with.
class BackendController {
 public:
  BackendController(World& world, engine::NodeOperations& nodes, engine::IntentStore& intents,
                    SurveyOptions survey = {});

  // Called when creates on a backend became possible, or its spec changed: pending claims are looked at
  // again.
  void on_usable(std::function<void(const std::string& backend)> usable) { usable_ = std::move(usable); }
  // Called with the name of a VolumeAttachment that the storage system knows nothing of.
  void on_lost_attachment(std::function<void(const std::string& attachment)> lost) {
    survey_.on_lost_attachment(std::move(lost));
  }
  void start(const base::Context& context);
  void stop();
  // OK once every StorageBackend was looked at once: the table of backends is complete.
  absl::Status settled() const;

 private:
  // What is remembered of a backend between reconciles.
  struct Memory {
    std::string uid;                                  // of the StorageBackend: another one starts afresh
    std::shared_ptr<const engine::BackendSpec> spec;  // the last valid one
    std::shared_ptr<drivers::Driver> driver;
    std::shared_ptr<engine::Intents> intents;
    std::string system_id;
    absl::Status probe = absl::UnavailableError("not probed yet");
    base::Clock::Monotonic probed_at{};
    // Credentials: those of `driver`, and the last that were refused (not tried again at every look).
    base::Secrets credentials, refused;
    bool credentials_good = false;  // the storage system has accepted `credentials`
    absl::Status credentials_status;
    base::Clock::Monotonic refused_at{};
    // Clusters registered with the storage under our id; registered: we are among them.
    std::vector<std::string> cluster_uids;
    bool registered = false;
    uint64_t kept_generation = 0;  // of the spec by which classes were found or made as they should be
    bool kept = false;
    absl::Status ready = absl::UnavailableError("not looked at yet");
    absl::Status identity;
    uint64_t generation = 0;    // of the spec that was published last
    bool told_identity = true;  // identity.ok() as it was published last
    bool published = false;     // in world.backends
  };

  void add_handlers();
  kube::Outcome reconcile(const base::Context& context, const std::string& name);
  Memory& memory(const kube::BackendObject& object);
  void enqueue_all();
  void enqueue_later(const std::string& name);
  void seen(const std::string& name);
  const drivers::Kind* kind_named(const std::string& name) const;
  std::vector<NodeView> node_views(const std::string& backend) const;
  // The objects kept for it. What goes wrong with the API server is the answer, all else is in the facts.
  absl::Status keep_objects(const base::Context& context, const kube::BackendObject& object,
                            const drivers::Kind& kind, Memory& memory, BackendFacts& facts,
                            std::chrono::nanoseconds& again);

  // ---- backend_driver.cpp: the way to the storage
  absl::Status prepare(const base::Context& context, const kube::BackendObject& object,
                       const drivers::Kind& kind, engine::BackendSpec spec, Memory& memory);
  absl::Status prepare_driver(const base::Context& context, const kube::BackendObject& object,
                              const drivers::Kind& kind, const engine::BackendSpec& spec, Memory& memory);
  absl::Status use_credentials(const base::Context& context, const kube::BackendObject& object,
                               const drivers::Kind& kind, const engine::BackendSpec& spec, Memory& memory);
  void probe(const base::Context& context, const drivers::Kind& kind, Memory& memory);
  void take_probe(const drivers::Kind& kind, const absl::Status& status, const drivers::ProbeResult& result,
                  Memory& memory);
  drivers::ClusterIdentity cluster() const;
  // Asks the storage which clusters of our id use it.
  absl::Status register_cluster(const base::Context& context, const drivers::Kind& kind, Memory& memory);
  absl::Status judge_cluster_of(const kube::BackendObject& object, const Memory& memory) const;
  void publish_backend(const kube::BackendObject& object, Memory& memory, const absl::Status& ready);

  // ---- backend_deletion.cpp: how it ends
  kube::Outcome reconcile_deleted(const base::Context& context, const kube::BackendObject& object,
                                  BackendFacts facts);
  absl::Status remove_retained(const base::Context& context, const kube::BackendObject& object,
                               const std::vector<std::string>& volumes, Memory& memory, std::string& message);
  absl::Status may_be_removed(const base::Context& context, const kube::Volume& volume, const Memory& memory);
  absl::Status keep_finalizer(const base::Context& context, const kube::BackendObject& object, bool wanted);

  // ---- backend_status.cpp: what it says of itself
  absl::Status write_status(const base::Context& context, const kube::BackendObject& object,
                            const BackendVerdict& verdict, const BackendFacts& facts, const Memory& memory,
                            const drivers::Kind* kind);
  void tell_changes(const kube::BackendObject& object, const BackendVerdict& verdict);
  void tell_orphans(const kube::BackendObject& object);

  World& world_;
  engine::NodeOperations& nodes_;
  engine::IntentStore& intent_store_;
  CapacityPublisher capacity_;
  VolumeSurvey survey_;
  std::function<void(const std::string&)> usable_;
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Memory>> memories_;  // an entry is used by its own lane only
  std::map<std::string, bool> seen_;                         // reconciled at least once
  LanedController controller_;
  base::Context root_;  // of start()
  SecretWatches secrets_;
};

}  // namespace collage::reconcile
