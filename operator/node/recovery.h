#pragma once

#include "operator/mount/mount_table.h"
#include "operator/node/journal.h"

// What a journal record and the mount table say together, after a restart of this program or of the machine.
// Pure.
//
// The rule: nothing is unmounted unless the journal says that its removal had begun, and nothing is mounted:
// whether the volume is still attached here, the storage tells (heal.cpp), or the next request.
namespace collage::node {

enum class Boot { kSame, kOther };
// What is mounted at a path of the record.
enum class Seen {
  kNothing,
  kOurs,   // the record's device
  kOther,  // something else
};

enum class StageDecision {
  kKeep,         // all is as the record says
  kMarkStaged,   // done, only the note of it was lost
  kRollBack,     // begun and not done: let go what may have been attached, forget
  kFinish,       // finish the unstage
  kForget,       // the machine was restarted: nothing of it is left
  kReportStale,  // the table contradicts the record; touch nothing, say so
};
StageDecision decide(StageState state, Boot boot, Seen seen);

enum class PublishDecision {
  kKeep,
  kMarkPublished,
  kDrop,    // nothing is there: forget the publication
  kFinish,  // finish the unpublish
  kReportStale,
};
PublishDecision decide(PublishState state, Boot boot, Seen seen);

// A raw block volume has no mount at its staging path: once staged, its device is there, and a loop device
// has its image.
Seen staging_seen(const VolumeRecord& record, Boot boot, const mount::MountTable& table);
Seen target_seen(const VolumeRecord& record, const std::string& target, const mount::MountTable& table);

}  // namespace collage::node
