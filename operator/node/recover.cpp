#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/status.h"
#include "base/subprocess.h"
#include "operator/node/agent_impl.h"

namespace collage::node {

using base::Context;

namespace {

const base::Counter& set_aside_total() {
  static const base::Counter counter("collage_node_journal_set_aside_total",
                                     "Journal files that could not be read and were set aside.");
  return counter;
}

// Where kubelet stages: .../plugins/kubernetes.io/csi/<driver>/<hash>/globalmount. "" for any other path, or
// another's driver.
std::string kind_of_staging_path(const std::string& path, const std::vector<drivers::Kind>& kinds) {
  const size_t csi = path.find("/plugins/kubernetes.io/csi/");
  if (csi == std::string::npos) return "";
  for (const drivers::Kind& kind : kinds) {
    if (path.find(absl::StrCat("/csi/", drivers::csi_driver_name(kind.info.kind), "/"), csi) !=
        std::string::npos)
      return kind.info.kind;
  }
  return "";
}

// Paths of the record at which the table shows something else than it says.
std::vector<std::string> contradictions(const VolumeRecord& record, const std::string& boot_id,
                                        const mount::MountTable& table) {
  const Boot boot = record.boot_id == boot_id ? Boot::kSame : Boot::kOther;
  std::vector<std::string> paths;
  if (decide(record.state, boot, staging_seen(record, boot, table)) == StageDecision::kReportStale) {
    paths.push_back(record.staging_path);
  }
  for (const auto& [target, publication] : record.publications) {
    const Seen seen = target_seen(record, target, table);
    if (decide(publication.state, boot, seen) == PublishDecision::kReportStale) paths.push_back(target);
  }
  return paths;
}

void show(const NodeStatus& status) {
  static const base::Gauge mounts("collage_node_mounts",
                                  "Volumes staged here, and paths whose mount is gone.", {"state"});
  static const base::Gauge abandoned(
      "collage_node_abandoned_children",
      "Steps that hang in the kernel and were given up, at most one a volume.");
  mounts.set(status.mounts_held, {"held"});
  mounts.set(status.mounts_stale, {"stale"});
  abandoned.set(base::abandoned_children());
}

}  // namespace

absl::Status AgentImpl::recover(const Context& context) {
  COLLAGE_ASSIGN_OR_RETURN(Journal::Loaded loaded, journal_.load());
  set_aside_total().add({}, static_cast<double>(loaded.set_aside.size()));
  COLLAGE_ASSIGN_OR_RETURN(const mount::MountTable table, mounter_->table());
  {
    std::lock_guard lock(mutex_);
    for (const VolumeRecord& record : loaded.records) records_.insert_or_assign(record.handle, record);
  }
  for (VolumeRecord& record : loaded.records) {
    const std::string handle = record.handle;
    const absl::Status status = recover_volume(context, std::move(record), table);
    // One volume that cannot be set right must not keep the others waiting: its own next step tries again.
    if (!status.ok())
      base::log::error(context, "a volume is not recovered yet", {{"volume", handle}, {"error", status}});
  }
  find_unjournaled(table);
  {
    std::lock_guard lock(mutex_);
    recovered_ = true;
  }
  tell_kinds();
  tell_change();
  return absl::OkStatus();
}

absl::Status AgentImpl::recover_publications(const Context& context, VolumeRecord& record, Boot boot,
                                             const mount::MountTable& table) {
  const std::map<std::string, Publication> before = record.publications;
  for (const auto& [target, publication] : before) {
    switch (decide(publication.state, boot, target_seen(record, target, table))) {
      case PublishDecision::kKeep:
        break;
      case PublishDecision::kMarkPublished:
        record.publications[target].state = PublishState::kPublished;
        COLLAGE_RETURN_IF_ERROR(save_if_possible(context, record));
        break;
      case PublishDecision::kDrop:
        record.publications.erase(target);
        COLLAGE_RETURN_IF_ERROR(save_if_possible(context, record));
        break;
      case PublishDecision::kFinish:
        COLLAGE_RETURN_IF_ERROR(finish_unpublish(context, record, target));
        break;
      case PublishDecision::kReportStale:
        base::log::warning(context, "the mount table contradicts the journal",
                           {{"volume", record.handle}, {"path", target}});
        set_stale(target, true);
        break;
    }
  }
  return absl::OkStatus();
}

absl::Status AgentImpl::recover_volume(const Context& context, VolumeRecord record,
                                       const mount::MountTable& table) {
  const Boot boot = record.boot_id == boot_id_ ? Boot::kSame : Boot::kOther;
  COLLAGE_RETURN_IF_ERROR(recover_publications(context, record, boot, table));
  switch (decide(record.state, boot, staging_seen(record, boot, table))) {
    case StageDecision::kKeep:
      return absl::OkStatus();
    case StageDecision::kMarkStaged: {
      // Attaching again finds the device that is there, which was not noted yet.
      COLLAGE_ASSIGN_OR_RETURN(
          record.reached, mounter_->attach(context, record.handle, record.access, attach_writing(record)));
      record.state = StageState::kStaged;
      if (staging_seen(record, boot, table) != Seen::kOurs) {
        return absl::FailedPreconditionError(
            absl::StrCat("something else is mounted at ", record.staging_path));
      }
      return save_if_possible(context, record);
    }
    case StageDecision::kRollBack:
      return roll_back(context, record);
    case StageDecision::kFinish:
      return finish_unstage(context, record);
    case StageDecision::kForget:
      if (record.publications.empty()) forget(context, record.handle);
      return absl::OkStatus();
    case StageDecision::kReportStale:
      base::log::warning(context, "the mount table contradicts the journal",
                         {{"volume", record.handle}, {"path", record.staging_path}});
      set_stale(record.staging_path, true);
      return absl::OkStatus();
  }
  __builtin_unreachable();
}

// Mounts of ours that no record tells of: their kinds stay served, so that they can be undone.
void AgentImpl::find_unjournaled(const mount::MountTable& table) {
  std::lock_guard lock(mutex_);
  for (const mount::MountEntry& entry : table.entries()) {
    const std::string kind = kind_of_staging_path(entry.mount_point, *options_.kinds);
    const bool known = std::any_of(records_.begin(), records_.end(), [&](const auto& record) {
      return record.second.staging_path == entry.mount_point;
    });
    if (!kind.empty() && !known) unjournaled_[entry.mount_point] = kind;
  }
}

// Every 30 s: mounts that went away under a volume that nobody works on.
void AgentImpl::look_for_stale() {
  show(status());
  const absl::StatusOr<mount::MountTable> before = mounter_->table();
  if (!before.ok()) return;
  std::vector<std::string> handles;
  {
    std::lock_guard lock(mutex_);
    if (!recovered_) return;
    for (const auto& [handle, record] : records_) handles.push_back(handle);
  }
  for (const std::string& handle : handles) {
    const absl::StatusOr<VolumeLocks::Hold> hold = locks_.try_acquire(handle);
    const std::optional<VolumeRecord> record = hold.ok() ? find_record(handle) : std::nullopt;
    if (!record.has_value() || record->state != StageState::kStaged) continue;
    std::vector<std::string> stale = contradictions(*record, boot_id_, *before);
    if (!stale.empty()) {  // that table may be older than the volume's last step
      const absl::StatusOr<mount::MountTable> now = mounter_->table();
      if (!now.ok()) return;
      stale = contradictions(*record, boot_id_, *now);
    }
    auto is_stale = [&](const std::string& path) {
      return std::find(stale.begin(), stale.end(), path) != stale.end();
    };
    set_stale(record->staging_path, is_stale(record->staging_path));
    for (const auto& [target, publication] : record->publications) set_stale(target, is_stale(target));
  }
}

}  // namespace collage::node
