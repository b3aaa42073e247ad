#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/status.h"
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
  keeper_ = std::jthread([this](std::stop_token stop) { keep(stop); });
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
        set_trouble(target, boot == Boot::kOther ? replaced(target) : trouble_of(record, target, table));
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
      if (record.publications.empty()) return roll_back(context, record);
      // It was being staged again under pods, who must go on being told.
      record.state = StageState::kStaged;
      set_trouble(record.staging_path, trouble_of(record, record.staging_path, table));
      return save_if_possible(context, record);
    case StageDecision::kFinish:
      return finish_unstage(context, record);
    case StageDecision::kForget:
      if (record.publications.empty()) forget(context, record.handle);
      return absl::OkStatus();
    case StageDecision::kReportStale:
      base::log::warning(context, "the mount table contradicts the journal",
                         {{"volume", record.handle}, {"path", record.staging_path}});
      set_trouble(record.staging_path, boot == Boot::kOther ? replaced(record.staging_path)
                                                            : trouble_of(record, record.staging_path, table));
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

}  // namespace collage::node
