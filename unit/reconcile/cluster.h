#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <shared_mutex>
#include <stop_token>
#include <string>
#include <vector>

#include "operator/kube/events.h"
#include "operator/reconcile/attach.h"
#include "operator/reconcile/backend_controller.h"
#include "operator/reconcile/config_map_intents.h"
#include "operator/reconcile/mount_health.h"
#include "operator/reconcile/provision.h"
#include "operator/reconcile/reclaim.h"
#include "operator/reconcile/storage_node_operations.h"
#include "operator/reconcile/world.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_driver.h"
#include "unit/testing/fake_nodes.h"

namespace collage::testing {

inline constexpr char kFake[] = "fake.collage.storage";

// An API server, a storage system, and an operator over them that can be killed and started again. Plays the
// PV controller: a claim and its volume are bound, a volume whose claim is gone is Released.
class Cluster {
 public:
  struct Options {
    FakeDriverOptions driver;
    reconcile::ProvisionOptions provision{.threads_per_backend = 4,
                                          .slow_retry = std::chrono::minutes(10),
                                          .settle = std::chrono::milliseconds(50)};
    reconcile::ReclaimOptions reclaim{.threads_per_backend = 4, .slow_retry = std::chrono::minutes(10)};
    reconcile::AttachOptions attach{.threads_per_backend = 4, .slow_retry = std::chrono::minutes(10)};
    bool binds = true;      // play the PV controller
    bool protects = false;  // and its protection finalizer on PersistentVolumes
    bool through_nodes =
        false;  // the operator calls the driver through StorageNodes, whose agents the test plays
    // Backends are put in use by the backend controller, of StorageBackends; it asks `node_answers`.
    bool keeps_backends = false;
    bool tells_mounts = false;  // what nodes say of their mounts reaches pods; onMountLost is DeletePod
    kube::ReflectorOptions watching;
    const base::Clock* clock = &base::Clock::real();
  };

  Cluster() : Cluster(Options()) {}
  explicit Cluster(Options options);
  ~Cluster();

  // The operator, with backend "fast" in use unless it keeps backends itself.
  void start();
  // As SIGKILL: from `dead()` on no write reaches the API server and no call the driver; then the process is
  // gone.
  void kill();
  void restart() {
    kill();
    start();
  }
  // Called by a fault hook at the cut: the process dies there, whatever it still does has no effect.
  void die() { dead_ = true; }
  // Writes which intents have begun and ended, as a backend under load does at every moment.
  void flush_intents();
  bool dead() const { return dead_; }

  // What the backend controller does: puts the backend in use as `change` makes it, and says so.
  void use_backend(const std::function<void(engine::Backend&)>& change = {});
  void drop_backend(const std::string& name = "fast");

  // The claim of a class of ours.
  static ClaimBuilder claim(const std::string& name = "data") { return a_claim(name).of_driver(kFake); }
  static ClassBuilder storage_class() { return a_class("fast").of_driver(kFake).of_backend("fast"); }
  // A released, deletable volume as we make them; its data is put into the driver too.
  VolumeBuilder volume(const std::string& name);
  void delete_claim(const std::string& name);

  bool wait(const std::function<bool()>& predicate) {
    return api.wait_until(predicate, std::chrono::seconds(20));
  }
  bool bound(const std::string& claim) const;
  std::vector<std::string> events(const std::string& reason) const;  // messages
  bool wait_event(const std::string& reason, const std::string& part);
  std::map<std::string, std::string> intents() const;  // in the ConfigMap
  // None is open, nor left in the ConfigMap once what is pending was written.
  bool no_intents() const;
  std::optional<base::Json> pv(const std::string& name) const {
    return api.get(kube::kPersistentVolumes, name);
  }
  std::optional<base::Json> attachment(const std::string& volume, const std::string& node = "node-a") const {
    return api.get(kube::kVolumeAttachments, "csi-" + volume + "-" + node);
  }

  struct Operator;
  Options options;
  FakeApiServer api;
  std::shared_ptr<FakeDriver> driver;  // the storage system: survives the operator
  std::shared_ptr<drivers::Driver>
      driver_used;                        // what backends are given, `driver` unless the test sets another
  std::vector<drivers::Kind> kinds;       // the first is the backend's
  std::string system_id = "fake-system";  // what backends report
  FakeNodes node_answers;                 // who is asked what a node holds; nobody unless the test says so
  std::unique_ptr<Operator> op;

 private:
  void play_binder();
  std::atomic<bool> dead_ = false;
  std::shared_mutex living_;  // held, shared, by what others have the operator do
};

// One life of the operator's process.
struct Cluster::Operator {
  explicit Operator(Cluster& cluster);
  ~Operator();
  struct Alive final : kube::Fence {
    explicit Alive(Cluster& cluster) : cluster(cluster) {}
    absl::StatusOr<std::chrono::nanoseconds> holds_for() const override {
      if (cluster.dead_) return absl::FailedPreconditionError("the process is dead");
      return std::chrono::hours(1);
    }
    Cluster& cluster;
  };

  Alive alive;
  std::stop_source stop;
  std::unique_ptr<kube::Client> client;
  kube::EventRecorder events;
  reconcile::ConfigMapIntents intent_store;
  reconcile::World world;
  std::optional<reconcile::StorageNodeOperations> nodes;
  reconcile::Provisioner provisioner;
  reconcile::Reclaimer reclaimer;
  reconcile::AttachController attacher;
  std::optional<reconcile::BackendController> backends;
  std::optional<reconcile::MountHealth> health;
  std::shared_ptr<engine::Intents> intents;  // of "fast"
};

}  // namespace collage::testing
