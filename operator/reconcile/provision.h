#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "operator/engine/intent_record.h"
#include "operator/reconcile/lanes.h"
#include "operator/reconcile/live_claims.h"
#include "operator/reconcile/provision_decision.h"
#include "operator/reconcile/provision_volume_object.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

struct ProvisionOptions {
  int threads_per_backend = 64;
  std::chrono::milliseconds create_timeout =
      std::chrono::minutes(1);  // of one call; not final, the next one goes on
  std::chrono::milliseconds announce_after =
      std::chrono::seconds(1);                                     // a create that lasts longer gets an event
  std::chrono::milliseconds slow_retry = std::chrono::minutes(5);  // of what cannot work until somebody acts
  std::chrono::milliseconds settle =
      std::chrono::seconds(30);  // until find() is believed for a create of an earlier process
};

// A claim becomes a volume (contract B, C, D).
//
//   claim --guards, live read--> Begun --driver: volume--> Made --API server: PersistentVolume--> done, the
//   intent ends
//                                 |  ^                      |
//                                 |  '--not final: the      '--claim gone: remove the volume, the intent ends
//                                 |     same request again
//                                 '--final error: find(name) says none --> the intent ends; the claim starts
//                                 over, with back-off
//
// Guarantees: an intent is durable before the first call; it ends only when the PersistentVolume exists, the
// volume was removed, or find() says that there is none. So a process killed at any instant leaks nothing:
// the next one replays the open intents. A claim that is gone while its create is under way is pursued to the
// end, then its volume is removed. Work is keyed by the claim's UID: a claim made anew under its old name is
// other work. Thread safe. Made before the informers start; they are stopped before it is destroyed.
class Provisioner {
 public:
  explicit Provisioner(World& world, ProvisionOptions options = {});
  ~Provisioner();

  // Once, when this process leads and the caches are whole: what they hold by then is looked at, changes
  // before it are not kept.
  void start(const base::Context& context);
  void stop();

  // The backend appeared, changed, or its readiness did: replays its intents once, and looks again at all
  // claims that wait for it. Does not block.
  void backend_changed(const std::string& backend);
  size_t depth() const { return lanes_.depth(); }

 private:
  // One claim as the queue names it: "<namespace>/<name>/<uid>".
  struct Id {
    std::string name_space, name, uid;
    std::string to_key() const;
    static Id parse(const std::string& key);
    static Id of(const kube::Claim& claim);
  };

  // A create that has begun. Changed only by the one reconcile of its key that runs; `creating` and
  // `announced` are also looked at by the announcer.
  struct Work {
    Id id;
    std::string backend;
    std::shared_ptr<engine::Intents> intents;
    engine::IntentRecord record;
    std::shared_ptr<const kube::StorageClass> storage_class;  // with `request`
    std::optional<SecretRefs> secrets;                        // nullopt: to be read from the claim
    std::optional<drivers::CreateRequest>
        request;  // frozen; nullopt: begun by an earlier process, to be made from the record
    bool place_matters = false;
    std::optional<drivers::Volume> volume;  // made; what is left is the PersistentVolume
    bool unwanted = false;                  // the volume is to be removed, whatever becomes of the claim
    base::Clock::Monotonic begun{};
    std::atomic<bool> creating = false;
    std::atomic<bool> announced = false;
  };
  using WorkPtr = std::shared_ptr<Work>;
  using ClassPtr = std::shared_ptr<const kube::StorageClass>;
  using BackendPtr = std::shared_ptr<const engine::Backend>;

  // ---- provision.cpp: what is to be done
  void add_handlers();
  bool is_pending(const kube::Claim& claim) const;
  std::string lane_of(const std::string& key) const;
  kube::Outcome reconcile(const base::Context& context, const std::string& key);
  kube::Outcome go_on(const base::Context& context, const WorkPtr& work, const kube::Claim& claim,
                      const drivers::Kind& kind, const ClassPtr& storage_class);
  kube::Outcome announce(const std::string& key);
  // At the claims that wait for this backend; "" for any.
  void look_again(const std::string& backend);

  // ---- provision_begin.cpp: everything up to the durable intent
  kube::Outcome begin(const base::Context& context, const kube::Claim& cached, const drivers::Kind& kind,
                      const ClassPtr& storage_class);
  kube::Outcome begin_on(const base::Context& context, const kube::Claim& cached, const drivers::Kind& kind,
                         const ClassPtr& storage_class, const engine::ClassParameters& parameters,
                         const BackendPtr& backend);
  absl::Status check_namespace(const engine::Backend& backend, const std::string& name_space) const;
  kube::Outcome record_intent(const base::Context& context, const WorkPtr& work, const kube::Claim& claim,
                              const engine::Backend& backend);
  absl::Status read_secrets(const base::Context& context, Work& work);
  // Makes the request of a create that an earlier process began. FAILED_PRECONDITION when its class is gone.
  absl::Status restore_request(Work& work, const drivers::Kind& kind) const;

  // ---- provision_create.cpp: the calls
  kube::Outcome create(const base::Context& context, const WorkPtr& work, const kube::Claim& claim,
                       const drivers::Kind& kind, const engine::Backend& backend);
  absl::StatusOr<drivers::Volume> call_create(const base::Context& context, Work& work,
                                              const engine::Backend& backend);
  absl::StatusOr<drivers::Volume> create_in_place(const base::Context& context, Work& work,
                                                  const engine::Backend& backend);
  kube::Outcome create_failed(const base::Context& context, const WorkPtr& work, const kube::Claim& claim,
                              const engine::Backend& backend, const absl::Status& status);
  kube::Outcome publish(const base::Context& context, const WorkPtr& work, const kube::Claim& claim,
                        const drivers::Kind& kind, const engine::Backend& backend);
  kube::Outcome exists_already(const base::Context& context, const WorkPtr& work, const kube::Claim& claim,
                               const engine::Backend& backend);
  kube::Outcome succeed(const base::Context& context, const WorkPtr& work, const kube::Claim& claim);
  kube::Outcome reschedule(const base::Context& context, const kube::Claim& claim, const absl::Status& why);

  // ---- provision_abandon.cpp: what nobody wants
  kube::Outcome abandon(const base::Context& context, const WorkPtr& work);
  kube::Outcome pursue(const base::Context& context, const WorkPtr& work, const engine::Backend& backend);
  kube::Outcome remove_volume(const base::Context& context, const WorkPtr& work,
                              const engine::Backend& backend);
  // Makes certain that no volume is left after a final error (`cause`), or after an earlier process: removes
  // one of our name that is ours. An error, whatever its code: it is not certain.
  enum class Settled { kNothingLeft, kNotOurs };
  absl::StatusOr<Settled> settle(const base::Context& context, const Work& work,
                                 const engine::Backend& backend, const absl::Status& cause);
  // As settle(), for a create of an earlier process whose request cannot be made any more: believes find()
  // only after a while.
  kube::Outcome settle_unknown(const base::Context& context, const WorkPtr& work,
                               const engine::Backend& backend);
  bool stands_for(const kube::Volume& volume, const Work& work) const;
  bool is_referred_to(const std::string& backend, const std::string& handle) const;

  // ---- provision_replay.cpp
  kube::Outcome replay(const base::Context& context, const std::string& backend);
  bool replayed(const engine::Backend& backend) const;

  WorkPtr find_work(const std::string& uid) const;
  // The create came to its end: its intent ends, what is reserved is given back unless the volume is real by
  // now.
  void end(const Work& work);
  void wait_for(const std::string& key, const std::string& backend);
  void waits_no_more(const std::string& key);
  // A limit of the backend refused it: it is looked at again when some of what is used is given back.
  void waits_for_room(const std::string& key, const std::string& backend);
  void room_came_free(const std::string& backend);
  void event(const Id& id, kube::EventType type, const std::string& reason, const std::string& message);
  // As many creates as may be are under way: begins when one of them ends.
  kube::Outcome wait_in_line(const kube::Claim& claim, const engine::Backend& backend);
  void next_in_line(const std::string& backend, const engine::Intents& intents);
  // An event; then slowly again, and at once when the claim, its class or its backend changes.
  kube::Outcome refuse(const kube::Claim& claim, const absl::Status& why);
  // An event; then again with back-off.
  kube::Outcome retry(const kube::Claim& claim, const absl::Status& why);

  World& world_;
  const ProvisionOptions options_;
  LiveClaims live_claims_;
  mutable std::mutex mutex_;
  std::map<std::string, WorkPtr> works_;               // by claim uid
  std::map<std::string, std::string> waiting_;         // key -> backend whose change may help
  std::map<std::string, std::set<std::string>> full_;  // backend -> keys that one of its limits refused
  std::map<std::string, std::set<std::string>> line_;  // backend -> keys that wait for a create to end
  // Backends whose intents were replayed, with the intents: a backend that is made anew has others.
  std::map<std::string, std::weak_ptr<engine::Intents>> replayed_;
  std::atomic<bool> started_ = false;
  LanedController lanes_;
  kube::Controller announcer_;  // says so when a create takes long
  kube::Controller replayer_;   // keys are backends
};

}  // namespace collage::reconcile
