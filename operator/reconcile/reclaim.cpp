#include "operator/reconcile/reclaim.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status.h"
#include "operator/reconcile/finalizers.h"
#include "operator/reconcile/volume_metrics.h"

namespace collage::reconcile {
namespace {

constexpr std::chrono::milliseconds kBusy{100};
constexpr char kFailed[] = "VolumeFailedDelete";

}  // namespace

Reclaimer::Reclaimer(World& world, ReclaimOptions options)
    : world_(world),
      options_(options),
      lanes_(
          "reclaim", options.threads_per_backend,
          [this](const std::string& name) -> std::string {
            const auto volume = world_.volumes.get(name);
            if (volume == nullptr) return "";
            const auto handle = drivers::parse_handle(volume->handle);
            return handle.ok() ? handle->backend : "";
          },
          [this](const base::Context& context, const std::string& name) {
            return reconcile(context, name);
          }) {
  world_.volumes.add_handler([this](const auto& before, const auto& after) {
    if (before != nullptr && (after == nullptr || after->meta.uid != before->meta.uid)) {
      std::lock_guard lock(mutex_);
      finished_.erase(before->meta.uid);
    }
    if (started_ && after != nullptr) enqueue_if_needed(*after);
  });
  // The last attachment that named a volume is gone.
  world_.attachments.add_handler([this](const auto& before, const auto& after) {
    if (!started_ || after != nullptr) return;
    if (const auto volume = world_.volumes.get(before->volume_name)) enqueue_if_needed(*volume);
  });
}

Reclaimer::~Reclaimer() {
  stop();
}

void Reclaimer::start(const base::Context& context) {
  lanes_.start(context);
  started_ = true;
  for (const auto& volume : world_.volumes.list()) enqueue_if_needed(*volume);
}

void Reclaimer::stop() {
  lanes_.stop();
}

void Reclaimer::backend_changed(const std::string& backend) {
  std::vector<std::string> names;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [name, waits_for] : waiting_) {
      if (waits_for == backend) names.push_back(name);
    }
  }
  for (const std::string& name : names) lanes_.enqueue(name);
}

ReclaimFacts Reclaimer::facts_of(const kube::Volume& volume) const {
  return {&volume, world_.kind_of_driver(volume.driver),
          static_cast<int>(world_.attachments.by_index(World::kByVolume, volume.meta.name).size())};
}

// Most volumes need nothing most of the time: they never come into the queue.
void Reclaimer::enqueue_if_needed(const kube::Volume& volume) {
  const ReclaimStep step = decide_reclaim(facts_of(volume));
  if (step == ReclaimStep::kDelete && is_finished(volume)) return;
  if (step != ReclaimStep::kIgnore && step != ReclaimStep::kWaitForDetach) lanes_.enqueue(volume.meta.name);
}

kube::Outcome Reclaimer::reconcile(const base::Context& context, const std::string& name) {
  const auto volume = world_.volumes.get(name);
  {
    std::lock_guard lock(mutex_);
    waiting_.erase(name);
  }
  if (volume == nullptr) return kube::Done{};
  switch (decide_reclaim(facts_of(*volume))) {
    case ReclaimStep::kIgnore:
    case ReclaimStep::kWaitForDetach:  // the end of the attachment brings it back
      return kube::Done{};
    case ReclaimStep::kAddFinalizer:
      return add_finalizer(context, *volume);
    case ReclaimStep::kDropFinalizers:
      return drop_finalizers(context, *volume, volume->meta.deleting);
    case ReclaimStep::kDelete:
      return is_finished(*volume) ? kube::Done{} : delete_volume(context, *volume);
  }
  return kube::Done{};
}

kube::Outcome Reclaimer::delete_volume(const base::Context& context, const kube::Volume& cached) {
  absl::StatusOr<base::Json> object = world_.client.get(context, kube::kPersistentVolumes, cached.meta.key());
  if (absl::IsNotFound(object.status())) return kube::Done{};
  if (!object.ok()) return kube::Retry{base::annotate(object.status(), "read the volume")};
  const absl::StatusOr<kube::Volume> live = kube::parse<kube::Volume>(*object);
  if (!live.ok()) return kube::Terminal{live.status()};
  // It has changed since: the informer brings it again.
  if (live->meta.uid != cached.meta.uid || decide_reclaim(facts_of(*live)) != ReclaimStep::kDelete)
    return kube::Done{};

  const auto handle = drivers::parse_handle(live->handle);
  if (!handle.ok()) return refuse(*live, handle.status());
  const auto backend = world_.backends.get(handle->backend);
  const bool being_set_up = backend == nullptr && world_.backend_objects.get(handle->backend) != nullptr;
  if (absl::Status status = judge_volume_backend(handle->backend, backend.get(), *live); !status.ok()) {
    if (!being_set_up && absl::IsFailedPrecondition(status)) return refuse(*live, status);
    std::lock_guard lock(mutex_);
    waiting_[live->meta.name] = handle->backend;
    return kube::RequeueAfter{options_.slow_retry};
  }
  return remove_at_provider(context, *live, *backend, *handle);
}

kube::Outcome Reclaimer::remove_at_provider(const base::Context& context, const kube::Volume& volume,
                                            const engine::Backend& backend, const drivers::Handle& handle) {
  const auto begun = context.clock().now();
  {
    const VolumeLocks::Hold hold = world_.locks.try_hold(volume.handle);
    if (!hold) return kube::RequeueAfter{kBusy};
    const metrics::Call call(volume.driver.str(), metrics::kDeleteVolume);
    const absl::Status status =
        backend.driver->remove(context.with_timeout(options_.delete_timeout), handle.id);
    call.done(status);
    if (!status.ok()) {
      if (context.stopped()) return kube::Retry{status};
      metrics::delete_failed(volume.storage_class.str());
      world_.events.event(kube::event_target(volume), kube::EventType::kWarning, kFailed,
                          absl::StrCat("volume ", volume.handle,
                                       " could not be deleted, this is tried again: ", status.message()));
      {
        std::lock_guard lock(mutex_);
        waiting_[volume.meta.name] = handle.backend;
      }
      return kube::Retry{base::annotate(status, absl::StrCat("delete volume ", volume.handle))};
    }
  }
  kube::Outcome outcome = remove_object(context, volume);
  if (std::holds_alternative<kube::Done>(outcome)) {
    finished(volume);
    metrics::delete_succeeded(volume.storage_class.str(), context.clock().now() - begun);
    base::log::info(context, "volume deleted", {{"volume", volume.handle}});
  }
  return outcome;
}

void Reclaimer::finished(const kube::Volume& volume) {
  {
    std::lock_guard lock(mutex_);
    finished_.insert(volume.meta.uid);
  }
  // The watch may have been faster: then nothing else would ever take it off the list.
  const auto cached = world_.volumes.get(volume.meta.name);
  if (cached != nullptr && cached->meta.uid == volume.meta.uid) return;
  std::lock_guard lock(mutex_);
  finished_.erase(volume.meta.uid);
}

bool Reclaimer::is_finished(const kube::Volume& volume) const {
  std::lock_guard lock(mutex_);
  return finished_.contains(volume.meta.uid);
}

// Two writes: the object's delete, and one patch for all that we keep it by. Ours stand before the API
// server's own protection, which may leave the list at any moment without moving them.
kube::Outcome Reclaimer::remove_object(const base::Context& context, const kube::Volume& volume) {
  if (!volume.meta.deleting) {
    absl::Status removed =
        world_.client.remove(context, kube::kPersistentVolumes, volume.meta.key(), {.uid = volume.meta.uid});
    if (absl::IsAborted(removed)) return kube::Done{};  // another object has this name now
    if (!removed.ok()) return kube::Retry{base::annotate(removed, "delete the PersistentVolume")};
  }
  return drop_finalizers(context, volume, true);
}

kube::Outcome Reclaimer::drop_finalizers(const base::Context& context, const kube::Volume& volume,
                                         bool going) {
  std::vector<std::string> names{engine::kProvisionerFinalizer};
  // The attacher's stays for the next attachment, and while there is one.
  if (going && facts_of(volume).attachments == 0)
    names.push_back(engine::attacher_finalizer(volume.driver.str()));
  absl::StatusOr<base::Json> now =
      remove_finalizers(context, world_.client, kube::kPersistentVolumes, volume.meta, names);
  if (!now.ok()) return kube::Retry{now.status()};
  // What is left without a finalizer and with a deletionTimestamp is gone: the watch says so.
  if (!now->is_null() && base::get_string(*now, "/metadata/deletionTimestamp").empty())
    world_.volumes.observe(*now);
  return kube::Done{};
}

kube::Outcome Reclaimer::add_finalizer(const base::Context& context, const kube::Volume& volume) {
  const base::Json patch = {
      {"metadata",
       {{"uid", volume.meta.uid},
        {"resourceVersion", volume.meta.resource_version},
        {"finalizers", finalizers_with(volume.meta, {engine::kProvisionerFinalizer})}}}};
  absl::StatusOr<base::Json> answer = world_.client.patch(
      context, kube::kPersistentVolumes, volume.meta.key(), kube::PatchType::kMerge, patch, {});
  if (answer.ok()) {
    world_.volumes.observe(*answer);
    return kube::Done{};
  }
  if (absl::IsNotFound(answer.status())) return kube::Done{};
  return kube::Retry{base::annotate(answer.status(), "protect the PersistentVolume by a finalizer")};
}

kube::Outcome Reclaimer::refuse(const kube::Volume& volume, const absl::Status& why) {
  world_.events.event(kube::event_target(volume), kube::EventType::kWarning, kFailed,
                      std::string(why.message()));
  if (const auto handle = drivers::parse_handle(volume.handle); handle.ok()) {
    std::lock_guard lock(mutex_);
    waiting_[volume.meta.name] = handle->backend;
  }
  return kube::RequeueAfter{options_.slow_retry};
}

}  // namespace collage::reconcile
