// What the agent does unasked: mounts that went away under a volume are made again, so that every container
// that starts afterwards works, and what cannot be set right is told.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/status.h"
#include "base/subprocess.h"
#include "operator/node/agent_impl.h"

namespace collage::node {

using base::Context;
using drivers::VolumeMode;

namespace {

constexpr auto kHealTimeout = std::chrono::minutes(2);
constexpr auto kAskTimeout = std::chrono::seconds(10);

void show(const NodeStatus& status) {
  static const base::Gauge mounts(
      "collage_node_mounts", "Volumes staged here; paths at which something is wrong; mounts made again.",
      {"state"});
  static const base::Gauge abandoned(
      "collage_node_abandoned_children",
      "Steps that hang in the kernel and were given up, at most one a volume.");
  mounts.set(status.mounts_held, {"held"});
  mounts.set(status.mounts_stale, {"stale"});
  mounts.set(status.mounts_healed, {"healed"});
  abandoned.set(base::abandoned_children());
}

std::vector<std::string> paths_of(const VolumeRecord& record) {
  std::vector<std::string> paths{record.staging_path};
  for (const auto& [target, publication] : record.publications) {
    if (publication.state == PublishState::kPublished) paths.push_back(target);
  }
  return paths;
}

}  // namespace

Trouble trouble_of(const VolumeRecord& record, const std::string& path, const mount::MountTable& table) {
  const bool staging = path == record.staging_path;
  const mount::MountEntry* entry = table.at(path);
  switch (staging ? staging_seen(record, Boot::kSame, table) : target_seen(record, path, table)) {
    case Seen::kNothing:
      if (staging && record.mode == VolumeMode::kBlock)
        return {kMountLost,
                absl::StrCat("the device ", record.reached.path, " has not the volume's image any more")};
      return {kMountLost, absl::StrCat("nothing is mounted at ", path, " any more")};
    case Seen::kOther:
      if (record.mode == VolumeMode::kBlock && entry != nullptr && entry->root.starts_with("/loop"))
        return {kMountLost, absl::StrCat("the device shown at ", path, " is not the volume's any more")};
      return replaced(path);
    case Seen::kOurs:
      if (entry == nullptr || record.mode == VolumeMode::kBlock || record.read_only ||
          !entry->super_read_only)
        return {};
      return {"ReadOnly",
              "the kernel made the file system read-only after an error: the node's kernel log says which; "
              "when the cause is mended, delete the pod: the file system is checked at the next mount"};
  }
  __builtin_unreachable();
}

Trouble replaced(const std::string& path) {
  return {kMountReplaced, absl::StrCat("what is mounted at ", path,
                                       " was not made for the volume: it is left alone; delete the pod, or "
                                       "unmount it by hand")};
}

std::string made_again(const std::string& path) {
  return absl::StrCat("the mount at ", path,
                      " was lost and is made again: a container that started meanwhile sees it only with "
                      "mountPropagation HostToContainer; restart the pod otherwise");
}

void AgentImpl::keep(std::stop_token stop) {
  const Context context(stop);
  while (!context.stopped()) {
    look_after(context);
    mounter_->wait_for_change(context.with_timeout(recheck_));
    // The mounts of a pod come and go in groups.
    if (!context.sleep_for(settle_).ok()) return;
  }
}

void AgentImpl::look_after(const Context& context) {
  show(status());
  const absl::StatusOr<mount::MountTable> before = mounter_->table();
  if (!before.ok()) return;
  std::vector<std::string> handles;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [handle, record] : records_) handles.push_back(handle);
  }
  for (const std::string& handle : handles) {
    // A step that is under way looks for itself.
    const absl::StatusOr<VolumeLocks::Hold> hold = locks_.try_acquire(handle);
    std::optional<VolumeRecord> record = hold.ok() ? find_record(handle) : std::nullopt;
    if (!record.has_value() || record->state != StageState::kStaged) continue;
    const std::vector<std::string> paths = paths_of(*record);
    const bool sound = std::all_of(paths.begin(), paths.end(), [&](const std::string& path) {
      return trouble_of(*record, path, *before).reason.empty();
    });
    // That table may be older than the volume's last step.
    const absl::StatusOr<mount::MountTable> now = sound ? before : mounter_->table();
    if (now.ok()) look_after(context.with_timeout(kHealTimeout), *std::move(record), *now);
  }
}

// The volume's lock is held.
void AgentImpl::look_after(const Context& context, VolumeRecord record, const mount::MountTable& table) {
  const auto note = [this](const std::string& path, Trouble trouble) {
    {
      std::lock_guard lock(mutex_);
      const auto known = troubles_.find(path);
      // What a look into the file system found is not in the table.
      if (trouble.reason.empty() && known != troubles_.end() && known->second.reason == kNotResponding)
        return;
    }
    set_trouble(path, std::move(trouble));
  };
  if (record.boot_id != boot_id_) {  // what is there was not made by us
    for (const std::string& path : paths_of(record))
      note(path, table.at(path) == nullptr ? Trouble{} : replaced(path));
    return;
  }
  std::set<std::string> sound;
  for (const std::string& path : paths_of(record)) {
    if (!trouble_of(record, path, table).reason.empty()) continue;
    sound.insert(path);
    witness(path, true);
  }
  // What was gone before this process looked may have been unmounted for good, and the note of it lost on a
  // full disk: then only the next request tells that it is wanted.
  const auto was_there = [this](const std::string& path) {
    std::lock_guard lock(mutex_);
    return witnessed_.contains(path);
  };
  std::vector<std::string> lost;
  bool news = false;
  for (auto& [target, publication] : record.publications) {
    if (publication.state != PublishState::kPublished ||
        target_seen(record, target, table) != Seen::kNothing || !was_there(target))
      continue;
    lost.push_back(target);
    news = news || !publication.lost;
    publication.lost = true;
    publication.healed_at = {};
  }
  // On the disk first, so that a crash forgets nobody; told only when it is known what comes of it.
  if (news) static_cast<void>(journal_.write(record));
  const bool unstaged =
      staging_seen(record, Boot::kSame, table) == Seen::kNothing && was_there(record.staging_path);
  absl::Status healed;
  bool restaged = false, rebound = false;
  if (unstaged || !lost.empty()) {
    healed = check_still_here(context, record);
    if (healed.ok() && unstaged) {
      healed = heal_staging(context, record);
      restaged = healed.ok();
    }
    for (const std::string& target : lost) {
      if (healed.ok()) healed = heal_target(context, record, target);
      rebound = rebound || healed.ok();
    }
    if (context.stopped()) return;
  }
  const absl::StatusOr<mount::MountTable> after = mounter_->table();
  if (!after.ok()) return;
  for (const std::string& path : paths_of(record)) {
    Trouble trouble = trouble_of(record, path, *after);
    // Lost during this look: the change brings on the next one, which makes it again. A pod that will see
    // that must not be deleted for what is told before.
    if (trouble.reason == kMountLost && sound.contains(path)) continue;
    if (trouble.reason == kMountLost) {
      if (!healed.ok())
        absl::StrAppend(&trouble.message, ", and it is not made again: ", std::string(healed.message()));
      absl::StrAppend(&trouble.message, "; restart the pod");
    }
    note(path, std::move(trouble));
  }
  if (news || restaged || rebound) static_cast<void>(save_if_possible(context, record));
}

// Whether the volume is still this node's to mount: asked of the storage, since the journal is as old as the
// last step. Nothing is mounted on a doubt.
absl::Status AgentImpl::check_still_here(const Context& context, const VolumeRecord& record) {
  COLLAGE_ASSIGN_OR_RETURN(const drivers::Handle handle, drivers::parse_handle(record.handle));
  const std::optional<BackendTable::Backend> backend = backends_.find(handle.backend);
  if (!backend.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("node ", options_.node_name, " knows no StorageBackend ", handle.backend));
  }
  if (!backend->ready) return not_ready(*backend);
  COLLAGE_ASSIGN_OR_RETURN(const base::Json volume,
                           carry_out(context.with_timeout(kAskTimeout), handle.backend,
                                     drivers::Verb::kInspect, {{"id", handle.id}}));
  const std::string holder = base::get_string(volume, "/attachedTo");
  if (!backend->kind->attaches || holder == options_.node_name) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("volume ", record.handle, " is not attached to node ",
                                                    options_.node_name, " any more",
                                                    holder.empty() ? "" : ", but to ", holder));
}

absl::Status AgentImpl::heal_staging(const Context& context, VolumeRecord& record) {
  COLLAGE_ASSIGN_OR_RETURN(record.reached,
                           mounter_->attach(context, record.handle, record.access, attach_writing(record)));
  // Crash before this note: the device is found again by its image. Before the mount, since a mount of a
  // device that the record does not know would be taken for somebody else's.
  static_cast<void>(journal_.write(record));
  if (record.mode == VolumeMode::kFilesystem) {
    COLLAGE_RETURN_IF_ERROR(mounter_->mount(
        context, record.handle, record.reached,
        {record.fs_type, record.options,
         record.read_only ? mount::Writing::kReadOnly : mount::Writing::kAllowed, mount::Blank::kRefuse},
        record.staging_path));
  }
  {
    std::lock_guard lock(mutex_);
    ++healed_;
  }
  base::log::warning(context, "a lost mount was made again",
                     {{"volume", record.handle}, {"path", record.staging_path}});
  return absl::OkStatus();
}

absl::Status AgentImpl::heal_target(const Context& context, VolumeRecord& record, const std::string& target) {
  const std::string source = record.mode == VolumeMode::kBlock ? record.reached.path : record.staging_path;
  Publication& publication = record.publications.at(target);
  COLLAGE_RETURN_IF_ERROR(
      mounter_->bind(context, record.handle, source, target,
                     publication.read_only ? mount::Writing::kReadOnly : mount::Writing::kAllowed));
  publication.healed_at = context.clock().wall();
  {
    std::lock_guard lock(mutex_);
    ++healed_;
  }
  base::log::warning(context, "a lost mount was made again", {{"volume", record.handle}, {"path", target}});
  return absl::OkStatus();
}

}  // namespace collage::node
