#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status.h"
#include "operator/node/agent_impl.h"

namespace collage::node {

using base::Context;
using drivers::AccessMode;
using drivers::VolumeMode;

namespace {

// May a volume be published at a second path of the node while it is at a first one? (CSI,
// NodePublishVolume.)
bool several_targets(AccessMode mode) {
  switch (mode) {
    case AccessMode::kSingleNodeWriter:
    case AccessMode::kSingleNodeReaderOnly:
    case AccessMode::kSingleNodeSingleWriter:
      return false;
    case AccessMode::kMultiNodeReaderOnly:
    case AccessMode::kMultiNodeSingleWriter:
    case AccessMode::kMultiNodeMultiWriter:
    case AccessMode::kSingleNodeMultiWriter:
      return true;
  }
  return false;
}

absl::Status not_staged(const std::string& handle, const std::string& path) {
  return absl::FailedPreconditionError(absl::StrCat("volume ", handle, " is not staged at ", path));
}

const char* reading(bool read_only) {
  return read_only ? "read-only" : "for writing";
}

}  // namespace

// Stages once more for a publish: who asks to publish a volume here says that it is attached here.
absl::StatusOr<VolumeRecord> AgentImpl::restage(const Context& context, const PublishRequest& request,
                                                const VolumeRecord& before) {
  COLLAGE_ASSIGN_OR_RETURN(VolumeRecord planned,
                           plan_stage({request.handle, before.staging_path, request.capability,
                                       request.volume_context, request.publish_context, before.read_only},
                                      before.staging_path));
  keep_publications(before, planned);
  COLLAGE_RETURN_IF_ERROR(do_stage(context, std::move(planned), false, mount::Blank::kRefuse));
  std::optional<VolumeRecord> record = find_record(request.handle);
  if (!record.has_value()) return not_staged(request.handle, before.staging_path);
  return *std::move(record);
}

// The record of a volume that is staged right now.
absl::StatusOr<VolumeRecord> AgentImpl::staged_record(const Context& context, const PublishRequest& request,
                                                      const std::string& staging_path,
                                                      const mount::MountTable& table) {
  const std::optional<VolumeRecord> record = find_record(request.handle);
  if (!record.has_value()) {
    // The journal lost it, the mount or the device is there: staging again finds all done and writes the
    // record.
    VolumeRecord lost;
    lost.staging_path = staging_path;
    if (request.capability.mode == VolumeMode::kBlock) {
      if (table.loops_in(request.handle.substr(request.handle.find_last_of('/') + 1)).empty())
        return not_staged(request.handle, staging_path);
    } else {
      const mount::MountEntry* entry = table.at(staging_path);
      if (entry == nullptr) return not_staged(request.handle, staging_path);
      lost.read_only = entry->super_read_only;
    }
    return restage(context, request, lost);
  }
  if (record->staging_path != staging_path || record->boot_id != boot_id_ ||
      record->state == StageState::kUnstaging) {
    return not_staged(request.handle, staging_path);
  }
  const Seen seen = staging_seen(*record, Boot::kSame, table);
  if (seen == Seen::kOther) {
    return absl::FailedPreconditionError(
        absl::StrCat("something else than volume ", request.handle, " is mounted at ", staging_path));
  }
  if (seen == Seen::kOurs && record->state == StageState::kStaged) return *record;
  COLLAGE_ASSIGN_OR_RETURN(VolumeRecord healed, restage(context, request, *record));
  {
    std::lock_guard lock(mutex_);
    ++healed_;
  }
  tell_change();
  base::log::warning(context, "a lost mount was made again",
                     {{"volume", request.handle}, {"path", staging_path}});
  return healed;
}

// `done`: published there as asked.
absl::Status AgentImpl::check_targets(const PublishRequest& request, const VolumeRecord& record,
                                      const std::string& target, bool read_only,
                                      const mount::MountTable& table, bool& done) {
  for (const auto& [path, publication] : record.publications) {
    const bool there = target_seen(record, path, table) == Seen::kOurs;
    if (path == target) {
      if (!there) continue;
      if (publication.read_only != read_only) {
        return absl::AlreadyExistsError(absl::StrCat("volume ", record.handle, " is published at ", target,
                                                     " ", reading(publication.read_only), ", not ",
                                                     reading(read_only)));
      }
      done = publication.state == PublishState::kPublished;
      continue;
    }
    if (!there) continue;
    if (!several_targets(request.capability.access_mode)) {
      return absl::FailedPreconditionError(
          absl::StrCat("volume ", record.handle, " is published at ", path, " already, and ",
                       drivers::to_string(request.capability.access_mode), " allows one path"));
    }
    if (record.mode == VolumeMode::kBlock && publication.read_only != read_only) {
      return absl::FailedPreconditionError(absl::StrCat(
          "raw block volume ", record.handle, " is published at ", path, " ", reading(publication.read_only),
          ": a device is writable for all its users or for none"));
    }
  }
  return absl::OkStatus();
}

absl::Status AgentImpl::publish(const Context& context, const PublishRequest& request) {
  COLLAGE_RETURN_IF_ERROR(handle_of(request.handle).status());
  COLLAGE_RETURN_IF_ERROR(check_path("target_path", request.target_path));
  if (request.staging_path.empty())
    return absl::FailedPreconditionError("staging_target_path: must be set: a volume is staged first");
  COLLAGE_RETURN_IF_ERROR(check_path("staging_target_path", request.staging_path));
  const std::string staging_path = mount::canonical_mount_point(request.staging_path);
  const std::string target = mount::canonical_mount_point(request.target_path);
  COLLAGE_ASSIGN_OR_RETURN(const VolumeLocks::Hold hold, begin(context, request.handle));
  COLLAGE_ASSIGN_OR_RETURN(const mount::MountTable table, mounter_->table());
  COLLAGE_ASSIGN_OR_RETURN(VolumeRecord record, staged_record(context, request, staging_path, table));
  if (record.mode != request.capability.mode) {
    return absl::FailedPreconditionError(absl::StrCat("volume ", record.handle, " is staged as ",
                                                      drivers::to_string(record.mode), ", not as ",
                                                      drivers::to_string(request.capability.mode)));
  }
  const bool read_only =
      request.read_only || record.read_only || drivers::for_readers(request.capability.access_mode);
  bool done = false;
  COLLAGE_RETURN_IF_ERROR(check_targets(request, record, target, read_only, table, done));
  if (done) return absl::OkStatus();
  Publication& publication = record.publications[target];
  publication = {.state = PublishState::kPublishing, .read_only = read_only, .pod = request.pod};
  COLLAGE_RETURN_IF_ERROR(save(record));
  // Crash here: recovery finds nothing mounted and forgets the publication. A mount of ours is adopted as it
  // is.
  if (target_seen(record, target, table) != Seen::kOurs) {
    const std::string source = record.mode == VolumeMode::kBlock ? record.reached.path : staging_path;
    const absl::Status bound =
        mounter_->bind(context, record.handle, source, target,
                       read_only ? mount::Writing::kReadOnly : mount::Writing::kAllowed);
    if (!bound.ok()) return base::annotate(bound, absl::StrCat("publish ", record.handle));
  }
  // Crash here: recovery finds the mount, and completes the note.
  publication.state = PublishState::kPublished;
  COLLAGE_RETURN_IF_ERROR(save(record));
  set_trouble(target, {});
  witness(target, true);
  base::log::info(context, "volume published",
                  {{"volume", record.handle}, {"path", target}, {"readOnly", read_only}});
  return absl::OkStatus();
}

absl::Status AgentImpl::finish_unpublish(const Context& context, VolumeRecord& record,
                                         const std::string& target) {
  COLLAGE_RETURN_IF_ERROR(mounter_->unmount(context, record.handle, target, mount::Leftover::kRemove));
  record.publications.erase(target);
  COLLAGE_RETURN_IF_ERROR(save_if_possible(context, record));
  set_trouble(target, {});
  witness(target, false);
  base::log::info(context, "volume unpublished", {{"volume", record.handle}, {"path", target}});
  return absl::OkStatus();
}

absl::Status AgentImpl::unpublish(const Context& context, const std::string& handle,
                                  const std::string& path) {
  if (handle.empty()) return absl::InvalidArgumentError("volume_id: must be set");
  COLLAGE_RETURN_IF_ERROR(check_path("target_path", path));
  const std::string target = mount::canonical_mount_point(path);
  COLLAGE_ASSIGN_OR_RETURN(const VolumeLocks::Hold hold, begin(context, handle));
  std::optional<VolumeRecord> record = find_record(handle);
  const auto publication =
      record.has_value() ? record->publications.find(target) : decltype(record->publications.end()){};
  if (!record.has_value() || publication == record->publications.end()) {
    // Not in the journal: the path is the caller's word, and all that is undone is the mount at it.
    return base::annotate(mounter_->unmount(context, handle, target, mount::Leftover::kRemove),
                          absl::StrCat("unpublish ", handle));
  }
  publication->second.state = PublishState::kUnpublishing;
  COLLAGE_RETURN_IF_ERROR(save_if_possible(context, *record));
  return base::annotate(finish_unpublish(context, *record, target), absl::StrCat("unpublish ", handle));
}

absl::StatusOr<VolumeStats> AgentImpl::stats(const Context& context, const std::string& handle,
                                             const std::string& given) {
  if (handle.empty()) return absl::InvalidArgumentError("volume_id: must be set");
  if (given.empty()) return absl::InvalidArgumentError("volume_path: must be set");
  const std::string path = mount::canonical_mount_point(given);
  COLLAGE_ASSIGN_OR_RETURN(const VolumeLocks::Hold hold, begin(context, handle));
  COLLAGE_ASSIGN_OR_RETURN(const mount::MountTable table, mounter_->table());
  const std::optional<VolumeRecord> record = find_record(handle);
  const bool known =
      record.has_value() && (record->staging_path == path || record->publications.contains(path));
  const mount::MountEntry* entry = table.at(path);
  if (!known && entry == nullptr)
    return absl::NotFoundError(absl::StrCat("volume ", handle, " is not at ", path));
  VolumeStats stats;
  const bool block = record.has_value() && record->mode == VolumeMode::kBlock;
  if (entry == nullptr && !block) {
    stats.abnormal = true;
    stats.message = absl::StrCat("nothing is mounted at ", path, " any more: restart the pod");
    return stats;
  }
  const std::string looked_at = block ? record->reached.path : path;
  const absl::StatusOr<mount::PathInfo> info = mounter_->inspect(context, handle, looked_at);
  if (!info.ok() && context.stopped()) return info.status();
  Trouble trouble;
  if (!info.ok()) {
    trouble = {kNotResponding, std::string(info.status().message())};
  } else {
    stats.total_bytes = info->total_bytes;
    stats.used_bytes = info->used_bytes;
    stats.available_bytes = info->available_bytes;
    stats.total_inodes = info->total_inodes;
    stats.used_inodes = info->used_inodes;
    stats.available_inodes = info->available_inodes;
    if (entry != nullptr && record.has_value()) trouble = trouble_of(*record, path, table);
  }
  if (known) set_trouble(path, trouble);
  const auto publication =
      record.has_value() ? record->publications.find(path) : decltype(record->publications.end()){};
  if (trouble.reason.empty() && record.has_value() && publication != record->publications.end() &&
      publication->second.lost) {
    trouble.message = made_again(path);
  }
  stats.abnormal = !trouble.message.empty();
  stats.message = trouble.message;
  return stats;
}

}  // namespace collage::node
