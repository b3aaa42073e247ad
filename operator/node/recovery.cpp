#include "operator/node/recovery.h"

namespace collage::node {
namespace {

// Of another boot: what is at the path was not made by us, for we note a mount before we make it.
bool contradicts(Boot boot, Seen seen) {
  return seen == Seen::kOther || (boot == Boot::kOther && seen == Seen::kOurs);
}

// A loop device's number is given to the next image once its own is gone.
bool device_is_ours(const VolumeRecord& record, const mount::MountTable& table) {
  const auto* loop = std::get_if<drivers::LoopFile>(&record.access);
  return loop == nullptr || table.backs(record.reached.path, loop->path);
}

}  // namespace

StageDecision decide(StageState state, Boot boot, Seen seen) {
  if (contradicts(boot, seen)) return StageDecision::kReportStale;
  if (boot == Boot::kOther) return StageDecision::kForget;
  const bool mounted = seen == Seen::kOurs;
  switch (state) {
    case StageState::kStaging:
      return mounted ? StageDecision::kMarkStaged : StageDecision::kRollBack;
    case StageState::kStaged:
      return mounted ? StageDecision::kKeep : StageDecision::kReportStale;
    case StageState::kUnstaging:
      return StageDecision::kFinish;
  }
  __builtin_unreachable();
}

PublishDecision decide(PublishState state, Boot boot, Seen seen) {
  if (contradicts(boot, seen)) return PublishDecision::kReportStale;
  if (boot == Boot::kOther) return PublishDecision::kDrop;
  const bool mounted = seen == Seen::kOurs;
  switch (state) {
    case PublishState::kPublishing:
      return mounted ? PublishDecision::kMarkPublished : PublishDecision::kDrop;
    case PublishState::kPublished:
      return mounted ? PublishDecision::kKeep : PublishDecision::kReportStale;
    case PublishState::kUnpublishing:
      return PublishDecision::kFinish;
  }
  __builtin_unreachable();
}

Seen staging_seen(const VolumeRecord& record, Boot boot, const mount::MountTable& table) {
  if (record.mode == drivers::VolumeMode::kBlock) {
    const bool staged = record.state == StageState::kStaged && boot == Boot::kSame;
    return staged && device_is_ours(record, table) ? Seen::kOurs : Seen::kNothing;
  }
  const mount::MountEntry* entry = table.at(record.staging_path);
  if (entry == nullptr) return Seen::kNothing;
  // A record of `staging` does not know its device yet, or knows the one of before; the path is the record's
  // alone.
  if (record.state == StageState::kStaging || record.reached.number.empty()) return Seen::kOurs;
  return entry->device == record.reached.number ? Seen::kOurs : Seen::kOther;
}

Seen target_seen(const VolumeRecord& record, const std::string& target, const mount::MountTable& table) {
  const mount::MountEntry* entry = table.at(target);
  if (entry == nullptr) return Seen::kNothing;
  if (record.mode ==
      drivers::VolumeMode::kBlock) {  // a device node, bound from /dev: the table shows "/loop3" of devtmpfs
    const std::string& device = record.reached.path;
    if (device.empty()) return Seen::kOther;  // of a journal that did not keep it
    const bool shown = entry->root.ends_with(device.substr(device.find_last_of('/')));
    return shown && device_is_ours(record, table) ? Seen::kOurs : Seen::kOther;
  }
  if (record.reached.number.empty()) return Seen::kOurs;  // a directory
  return entry->device == record.reached.number ? Seen::kOurs : Seen::kOther;
}

}  // namespace collage::node
