#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "operator/engine/names.h"
#include "operator/reconcile/lanes.h"
#include "operator/reconcile/reclaim_decision.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

struct ReclaimOptions {
  int threads_per_backend = 64;
  std::chrono::milliseconds delete_timeout = std::chrono::minutes(1);
  std::chrono::milliseconds slow_retry = std::chrono::minutes(5);  // of what cannot work until somebody acts
};

// A released volume goes, at the provider first and then as an object; our finalizers come and go with the
// policy (contract E).
//
//   Released, policy Delete --live read--> driver: remove --> object: delete --> our finalizers: out, in one
//   patch --> gone
//
// What a kill leaves, and who heals it: nothing is remembered, every step may be repeated. After the driver's
// remove the object is still Released with our finalizer: the next process removes again (of what is gone:
// OK) and goes on. After the object's delete it has a deletionTimestamp and our finalizer: the same. A volume
// is read live before it is removed at the provider, since a policy that was just changed to Retain must win.
// Thread safe. Made before the informers start; they are stopped before it is destroyed.
class Reclaimer {
 public:
  explicit Reclaimer(World& world, ReclaimOptions options = {});
  ~Reclaimer();

  // Once, when this process leads and the caches are whole.
  void start(const base::Context& context);
  void stop();
  // Looks again at all volumes that wait for this backend. Does not block.
  void backend_changed(const std::string& backend);
  size_t depth() const { return lanes_.depth(); }

 private:
  ReclaimFacts facts_of(const kube::Volume& volume) const;
  void enqueue_if_needed(const kube::Volume& volume);
  kube::Outcome reconcile(const base::Context& context, const std::string& name);
  kube::Outcome delete_volume(const base::Context& context, const kube::Volume& cached);
  kube::Outcome remove_at_provider(const base::Context& context, const kube::Volume& volume,
                                   const engine::Backend& backend, const drivers::Handle& handle);
  kube::Outcome remove_object(const base::Context& context, const kube::Volume& volume);
  kube::Outcome add_finalizer(const base::Context& context, const kube::Volume& volume);
  // going: the object was deleted, only finalizers keep it.
  kube::Outcome drop_finalizers(const base::Context& context, const kube::Volume& volume, bool going);
  void finished(const kube::Volume& volume);
  bool is_finished(const kube::Volume& volume) const;
  // An event on the volume; then slowly again, and at once when its backend changes.
  kube::Outcome refuse(const kube::Volume& volume, const absl::Status& why);

  World& world_;
  const ReclaimOptions options_;
  mutable std::mutex mutex_;
  std::map<std::string, std::string> waiting_;  // volume -> backend whose change may help
  // UIDs of volumes that are removed while the cache still holds them: the events of our own writes would
  // have each looked at, live, once more.
  std::set<std::string> finished_;
  std::atomic<bool> started_ = false;
  LanedController lanes_;
};

}  // namespace collage::reconcile
