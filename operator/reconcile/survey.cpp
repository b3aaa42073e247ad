#include "operator/reconcile/survey.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/random.h"
#include "base/status.h"
#include "operator/engine/names.h"

namespace collage::reconcile {
namespace {

constexpr int kThreads = 2;
constexpr size_t kNamed = 20;
// A list that changes under our hands is begun again so many times.
constexpr int kAttempts = 3;

std::chrono::milliseconds spread(std::chrono::milliseconds interval) {
  return interval + std::chrono::duration_cast<std::chrono::milliseconds>(interval * base::random_unit());
}

absl::StatusOr<std::vector<drivers::Volume>> list_all(const base::Context& context, drivers::Driver& driver) {
  absl::Status status;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::vector<drivers::Volume> volumes;
    std::string token;
    do {
      auto page = driver.list(context, token, 0);
      status = page.status();
      if (!status.ok()) break;
      volumes.insert(volumes.end(), std::make_move_iterator(page->volumes.begin()),
                     std::make_move_iterator(page->volumes.end()));
      token = page->next_token;
    } while (!token.empty());
    if (status.ok()) return volumes;
    if (!absl::IsAborted(status)) break;
  }
  return base::annotate(status, "list the volumes of the storage");
}

}  // namespace

Orphans find_orphans(const std::vector<drivers::Volume>& volumes, const std::string& backend,
                     const std::string& cluster_id, const std::set<std::string>& handles,
                     const std::set<std::string>& claim_uids) {
  std::vector<std::string> found;
  for (const drivers::Volume& volume : volumes) {
    const auto tag = volume.tags.find(drivers::kTagCluster);
    if (tag == volume.tags.end() || tag->second != cluster_id) continue;
    const std::string handle = drivers::volume_handle(backend, volume.id);
    if (handles.contains(handle) || claim_uids.contains(engine::claim_uid_of(volume.name))) continue;
    found.push_back(handle);
  }
  std::sort(found.begin(), found.end());
  Orphans orphans{.count = found.size()};
  found.resize(std::min(found.size(), kNamed));
  orphans.names = std::move(found);
  return orphans;
}

VolumeSurvey::VolumeSurvey(World& world, SurveyOptions options,
                           std::function<void(const std::string&)> changed)
    : world_(world),
      options_(options),
      changed_(std::move(changed)),
      controller_("survey", kThreads, [this](const base::Context& context, const std::string& name) {
        return run(context, name);
      }) {
  world_.volumes.add_handler([this](const auto& before, const auto& after) {
    // Its volume is removed before the object goes, but for one that is retained, or whose finalizer somebody
    // took off: that may have stayed behind.
    if (after != nullptr || before == nullptr || world_.kind_of_driver(before->driver) == nullptr) return;
    if (before->phase == "Released" && before->reclaim_policy == "Delete") return;
    if (const auto handle = drivers::parse_handle(before->handle); handle.ok()) soon(handle->backend);
  });
}

void VolumeSurvey::start(const base::Context& context) {
  controller_.start(context);
}

void VolumeSurvey::soon(const std::string& backend) {
  controller_.enqueue_after(backend, spread(options_.after));
}

std::optional<Orphans> VolumeSurvey::orphans(const std::string& backend) const {
  std::lock_guard lock(mutex_);
  const auto found = orphans_.find(backend);
  return found == orphans_.end() ? std::nullopt : std::optional(found->second);
}

void VolumeSurvey::forget(const std::string& backend) {
  std::lock_guard lock(mutex_);
  orphans_.erase(backend);
}

std::set<std::string> VolumeSurvey::handles(const std::string& backend) const {
  std::set<std::string> handles;
  for (const auto& volume : world_.volumes.by_index(World::kByBackend, backend))
    handles.insert(volume->handle);
  return handles;
}

// A volume that is made or removed while the list is read is never taken for an orphan: it is known before,
// after, or by its intent, which ends only when the PersistentVolume is in the cache.
kube::Outcome VolumeSurvey::run(const base::Context& context, const std::string& name) {
  const auto backend = world_.backends.get(name);
  if (backend == nullptr) return kube::Done{};
  const bool asks_itself = backend->driver->info().control == drivers::ControlPlace::kAnywhere;
  if (!backend->identity.ok() || (!backend->ready.ok() && !backend->spec.paused))
    return kube::RequeueAfter{spread(options_.every)};
  if (backend->intents != nullptr && !backend->intents->loaded()) return kube::RequeueAfter{options_.after};
  std::set<std::string> known = handles(name);
  const std::set<std::string> attached = attached_now(name);
  const auto volumes = list_all(context.with_timeout(options_.timeout), *backend->driver);
  if (!volumes.ok()) {
    base::log::warning(context, "volumes cannot be counted at the storage",
                       {{"backend", name}, {"error", volumes.status()}});
    return kube::RequeueAfter{spread(asks_itself ? options_.every : options_.every_through_nodes)};
  }
  std::set<std::string> creates;
  if (backend->intents != nullptr) {
    for (const auto& [uid, record] : backend->intents->open()) creates.insert(uid);
  }
  known.merge(handles(name));
  const Orphans now = find_orphans(*volumes, name, world_.cluster_id, known, creates);
  bool changed = false;
  {
    std::lock_guard lock(mutex_);
    auto [entry, fresh] = orphans_.try_emplace(name);
    changed = fresh || entry->second != now;
    entry->second = now;
  }
  check_attachments(name, attached, *volumes);
  if (changed) changed_(name);
  if (asks_itself) return kube::RequeueAfter{spread(options_.every)};
  // What a person removes shall not be counted for ever.
  if (now.count > 0) return kube::RequeueAfter{spread(options_.every_through_nodes)};
  return kube::Done{};
}

// The UIDs of the attachments that say so.
std::set<std::string> VolumeSurvey::attached_now(const std::string& backend) const {
  std::set<std::string> uids;
  for (const auto& volume : world_.volumes.by_index(World::kByBackend, backend)) {
    for (const auto& attachment : world_.attachments.by_index(World::kByVolume, volume->meta.name)) {
      if (attachment->attached) uids.insert(attachment->meta.uid);
    }
  }
  return uids;
}

// `attached`: before the list was read. One that was attached meanwhile may be missing from it.
void VolumeSurvey::check_attachments(const std::string& backend, const std::set<std::string>& attached,
                                     const std::vector<drivers::Volume>& volumes) {
  std::map<std::string, std::string> holders;  // handle -> node id
  for (const drivers::Volume& volume : volumes)
    holders[drivers::volume_handle(backend, volume.id)] = volume.attached_to;
  for (const auto& volume : world_.volumes.by_index(World::kByBackend, backend)) {
    const drivers::Kind* const kind = world_.kind_of_driver(volume->driver);
    const auto holder = holders.find(volume->handle);
    if (kind == nullptr || !kind->info.tells_holders || holder == holders.end()) continue;
    for (const auto& attachment : world_.attachments.by_index(World::kByVolume, volume->meta.name)) {
      if (!attachment->attached || attachment->meta.deleting || attachment->node_id.empty() ||
          attachment->node_id == holder->second || !attached.contains(attachment->meta.uid))
        continue;
      if (lost_) lost_(attachment->meta.name);
    }
  }
}

}  // namespace collage::reconcile
