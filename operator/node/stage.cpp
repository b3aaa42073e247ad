#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "base/status.h"
#include "operator/mount/mount_options.h"
#include "operator/node/agent_impl.h"

namespace collage::node {

using base::Context;
using drivers::AccessMode;
using drivers::VolumeMode;

namespace {

// volume_context: the storage system that the volume was made on, as the operator wrote it into the
// PersistentVolume.
constexpr char kSystemId[] = "collage.storage/system-id";

std::string staged_as(const VolumeRecord& record) {
  if (record.mode == VolumeMode::kBlock) return record.read_only ? "read-only raw block" : "raw block";
  return absl::StrCat(record.fs_type, record.read_only ? ", read-only" : "",
                      record.options.empty() ? "" : ", with ", record.options);
}

bool alike(const VolumeRecord& a, const VolumeRecord& b) {
  return a.mode == b.mode && a.fs_type == b.fs_type && a.options == b.options && a.read_only == b.read_only;
}

absl::Status check_capability(const drivers::DriverInfo& info, const drivers::VolumeCapability& capability) {
  if (!drivers::supports(info, capability.mode) || !drivers::supports(info, capability.access_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "volumes of kind ", info.kind, " cannot be used as ", drivers::to_string(capability.mode),
        " with access mode ", drivers::to_string(capability.access_mode)));
  }
  const bool known =
      std::find(info.fs_types.begin(), info.fs_types.end(), capability.fs_type) != info.fs_types.end();
  if (capability.mode == VolumeMode::kFilesystem && !capability.fs_type.empty() && !known) {
    return absl::InvalidArgumentError(absl::StrCat("volume_capability.mount.fs_type: volumes of kind ",
                                                   info.kind, " cannot be ", capability.fs_type));
  }
  return absl::OkStatus();
}

}  // namespace

mount::Writing attach_writing(const VolumeRecord& record) {
  // A file system for one node's readers may still have a journal to replay; one that several nodes read must
  // not.
  const bool never = record.read_only && (record.mode == VolumeMode::kBlock ||
                                          record.access_mode == AccessMode::kMultiNodeReaderOnly);
  return never ? mount::Writing::kReadOnly : mount::Writing::kAllowed;
}

absl::StatusOr<VolumeRecord> AgentImpl::plan_stage(const StageRequest& request,
                                                   const std::string& staging_path) {
  COLLAGE_ASSIGN_OR_RETURN(const drivers::Handle handle, handle_of(request.handle));
  const std::optional<BackendTable::Backend> backend = backends_.find(handle.backend);
  if (!backend.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("node ", options_.node_name, " knows no StorageBackend ", handle.backend));
  }
  if (!backend->ready) return not_ready(*backend);
  const auto made_on = request.volume_context.find(kSystemId);
  if (made_on != request.volume_context.end() && made_on->second != backend->config.system_id) {
    return absl::FailedPreconditionError(
        absl::StrCat("volume ", request.handle, " was made on the storage system ", made_on->second,
                     ", and backend ", handle.backend, " is ", backend->config.system_id, " now"));
  }
  const drivers::DriverInfo& info = backend->kind->info;
  COLLAGE_RETURN_IF_ERROR(check_capability(info, request.capability));
  VolumeRecord record;
  record.handle = request.handle;
  record.kind = backend->config.kind;
  record.boot_id = boot_id_;
  record.staging_path = staging_path;
  record.mode = request.capability.mode;
  record.access_mode = request.capability.access_mode;
  record.read_only = request.read_only || drivers::for_readers(record.access_mode);
  if (record.mode == VolumeMode::kFilesystem) {
    record.fs_type = request.capability.fs_type;
    if (record.fs_type.empty() && !info.fs_types.empty()) record.fs_type = info.fs_types.front();
    COLLAGE_ASSIGN_OR_RETURN(record.options,
                             mount::mount_options(record.fs_type, request.capability.mount_flags));
  }
  COLLAGE_ASSIGN_OR_RETURN(
      record.access, backend->driver->access(handle.id, request.volume_context, request.publish_context));
  return record;
}

// `done`: staged as asked, nothing is left to do.
absl::Status AgentImpl::check_staged(const StageRequest& request, const VolumeRecord& record,
                                     const std::string& staging_path, const mount::MountTable& table,
                                     bool& done) {
  if (record.boot_id != boot_id_ || staging_seen(record, Boot::kSame, table) != Seen::kOurs)
    return absl::OkStatus();
  if (record.staging_path != staging_path) {
    return absl::FailedPreconditionError(
        absl::StrCat("volume ", record.handle, " is staged at ", record.staging_path, " already"));
  }
  if (record.state != StageState::kStaged) return absl::OkStatus();
  VolumeRecord wanted = record;
  wanted.mode = request.capability.mode;
  wanted.read_only = request.read_only || drivers::for_readers(request.capability.access_mode);
  if (wanted.mode == VolumeMode::kFilesystem) {
    if (!request.capability.fs_type.empty()) wanted.fs_type = request.capability.fs_type;
    COLLAGE_ASSIGN_OR_RETURN(wanted.options,
                             mount::mount_options(wanted.fs_type, request.capability.mount_flags));
  }
  if (!alike(record, wanted)) {
    return absl::AlreadyExistsError(absl::StrCat("volume ", record.handle, " is staged at ", staging_path,
                                                 " as ", staged_as(record), ", not as ", staged_as(wanted)));
  }
  done = true;
  return absl::OkStatus();
}

absl::Status AgentImpl::stage(const Context& context, const StageRequest& request) {
  COLLAGE_RETURN_IF_ERROR(handle_of(request.handle).status());
  COLLAGE_RETURN_IF_ERROR(check_path("staging_target_path", request.staging_path));
  const std::string staging_path = mount::canonical_mount_point(request.staging_path);
  COLLAGE_ASSIGN_OR_RETURN(const VolumeLocks::Hold hold, begin(context, request.handle));
  COLLAGE_ASSIGN_OR_RETURN(const mount::MountTable table, mounter_->table());
  std::optional<VolumeRecord> known = find_record(request.handle);
  if (known.has_value() && known->state == StageState::kUnstaging) {
    COLLAGE_RETURN_IF_ERROR(finish_unstage(context, *known));
    known.reset();
  }
  if (known.has_value()) {
    bool done = false;
    COLLAGE_RETURN_IF_ERROR(check_staged(request, *known, staging_path, table, done));
    if (done) return absl::OkStatus();
  }
  COLLAGE_ASSIGN_OR_RETURN(VolumeRecord record, plan_stage(request, staging_path));
  if (known.has_value() && known->boot_id == boot_id_) keep_publications(*known, record);
  return do_stage(context, std::move(record), !known.has_value());
}

void AgentImpl::keep_publications(const VolumeRecord& before, VolumeRecord& record) {
  if (before.publications.empty()) return;
  record.publications = before.publications;
  record.reached = before.reached;
}

// `fresh`: the volume had no record, so that after a failure nothing of it need stay.
absl::Status AgentImpl::do_stage(const Context& context, VolumeRecord record, bool fresh,
                                 mount::Blank blank) {
  record.state = StageState::kStaging;
  COLLAGE_RETURN_IF_ERROR(save(record));
  // Crash here: recovery finds `staging` and nothing mounted, and rolls back; where pods have the volume, it
  // tells them instead that it is lost.
  absl::StatusOr<mount::Reached> reached =
      mounter_->attach(context, record.handle, record.access, attach_writing(record));
  absl::Status status = reached.status();
  if (status.ok() && record.mode == VolumeMode::kFilesystem) {
    status = mounter_->mount(context, record.handle, *reached,
                             {record.fs_type, record.options,
                              record.read_only ? mount::Writing::kReadOnly : mount::Writing::kAllowed, blank},
                             record.staging_path);
  }
  if (!status.ok()) {
    if (fresh && drivers::is_final(status)) {
      const absl::Status undone = roll_back(context, record);
      if (!undone.ok())
        base::log::warning(context, "a failed stage is not undone yet",
                           {{"volume", record.handle}, {"error", undone}});
    }
    return base::annotate(status, absl::StrCat("stage ", record.handle));
  }
  // Crash here: recovery finds `staging` and the mount, and completes the note.
  record.reached = *std::move(reached);
  record.state = StageState::kStaged;
  COLLAGE_RETURN_IF_ERROR(save(record));
  set_trouble(record.staging_path, {});
  witness(record.staging_path, true);
  base::log::info(context, "volume staged",
                  {{"volume", record.handle}, {"path", record.staging_path}, {"as", staged_as(record)}});
  return absl::OkStatus();
}

absl::Status AgentImpl::roll_back(const Context& context, const VolumeRecord& record) {
  COLLAGE_RETURN_IF_ERROR(mounter_->detach(context, record.handle, record.access, record.reached));
  forget(context, record.handle);
  return absl::OkStatus();
}

absl::Status AgentImpl::finish_unstage(const Context& context, const VolumeRecord& record) {
  if (record.mode == VolumeMode::kFilesystem) {
    COLLAGE_RETURN_IF_ERROR(
        mounter_->unmount(context, record.handle, record.staging_path, mount::Leftover::kKeep));
  }
  COLLAGE_RETURN_IF_ERROR(mounter_->detach(context, record.handle, record.access, record.reached));
  forget(context, record.handle);
  base::log::info(context, "volume unstaged", {{"volume", record.handle}, {"path", record.staging_path}});
  return absl::OkStatus();
}

// The loop device of a volume that is mounted nowhere and that no record tells of, "" when there is none.
// Found by the name of its image's directory; several that fit are a person's to tell apart.
absl::StatusOr<std::string> AgentImpl::lost_loop(const std::string& handle, const mount::MountTable& table) {
  std::vector<std::string> devices = table.loops_in(handle.substr(handle.find_last_of('/') + 1));
  {
    std::lock_guard lock(mutex_);
    if (records_.contains(handle)) return "";
    std::erase_if(devices, [&](const std::string& device) {
      return std::any_of(records_.begin(), records_.end(),
                         [&](const auto& entry) { return entry.second.reached.path == device; });
    });
  }
  if (devices.empty()) return "";
  if (devices.size() > 1) {
    return absl::FailedPreconditionError(
        absl::StrCat("the journal of volume ", handle, " is lost, and several loop devices may be its own: ",
                     absl::StrJoin(devices, ", "), "; detach them by hand (losetup -d), then this goes on"));
  }
  const std::string root = devices.front().substr(devices.front().find_last_of('/'));  // "/loop3"
  for (const mount::MountEntry& entry : table.entries()) {
    if (entry.root == root && entry.fs_type == "devtmpfs") {
      return absl::FailedPreconditionError(
          absl::StrCat("volume ", handle, " is still published at ", entry.mount_point));
    }
  }
  return devices.front();
}

// The journal lost this volume: the kernel says what is mounted, and which device has its image.
absl::Status AgentImpl::unstage_unknown(const Context& context, const std::string& handle,
                                        const std::string& staging_path, const mount::MountTable& table) {
  const mount::MountEntry* entry = table.at(staging_path);
  std::string device;
  if (entry == nullptr) {
    COLLAGE_ASSIGN_OR_RETURN(device, lost_loop(handle, table));
  } else {
    if (entry->source.starts_with("/dev/loop")) device = entry->source;
    COLLAGE_RETURN_IF_ERROR(mounter_->unmount(context, handle, staging_path, mount::Leftover::kKeep));
  }
  if (!device.empty())
    COLLAGE_RETURN_IF_ERROR(mounter_->detach(context, handle, drivers::LoopFile{}, {.path = device}));
  if (entry != nullptr || !device.empty()) {
    base::log::info(context, "volume unstaged without a journal",
                    {{"volume", handle}, {"path", staging_path}, {"device", device}});
  }
  {
    std::lock_guard lock(mutex_);
    unjournaled_.erase(staging_path);
  }
  tell_kinds();
  return absl::OkStatus();
}

absl::Status AgentImpl::unstage(const Context& context, const std::string& handle, const std::string& path) {
  // A handle that no stage accepts was never staged: the way back is open to it all the same.
  if (handle.empty()) return absl::InvalidArgumentError("volume_id: must be set");
  COLLAGE_RETURN_IF_ERROR(check_path("staging_target_path", path));
  const std::string staging_path = mount::canonical_mount_point(path);
  COLLAGE_ASSIGN_OR_RETURN(const VolumeLocks::Hold hold, begin(context, handle));
  COLLAGE_ASSIGN_OR_RETURN(const mount::MountTable table, mounter_->table());
  std::optional<VolumeRecord> record = find_record(handle);
  if (!record.has_value() || record->staging_path != staging_path)
    return unstage_unknown(context, handle, staging_path, table);
  for (const auto& [target, publication] : record->publications) {
    if (target_seen(*record, target, table) == Seen::kOurs) {
      return absl::FailedPreconditionError(
          absl::StrCat("volume ", handle, " is still published at ", target));
    }
  }
  record->state = StageState::kUnstaging;
  COLLAGE_RETURN_IF_ERROR(save_if_possible(context, *record));
  return base::annotate(finish_unstage(context, *record), absl::StrCat("unstage ", handle));
}

}  // namespace collage::node
