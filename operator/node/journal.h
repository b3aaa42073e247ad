#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/json.h"
#include "drivers/access.h"
#include "drivers/volume.h"
#include "operator/mount/mounter.h"
#include "operator/node/agent.h"

// What this node has done, is doing and has undone to each volume: one file a volume, written before and
// after each act, so that a crash at any instant leaves a note of what was under way. No secret is ever in
// it.
namespace collage::node {

enum class StageState { kStaging, kStaged, kUnstaging };
enum class PublishState { kPublishing, kPublished, kUnpublishing };

struct Publication {
  PublishState state = PublishState::kPublishing;
  bool read_only = false;
  bool lost = false;  // its mount went away once: a container that was started then does not see the volume
  base::Clock::Wall healed_at{};  // when it was made again; {}: it was not
  PodRef pod;
  friend bool operator==(const Publication&, const Publication&) = default;
};

//             stage                      publish(t)
//   (no file) ------> staging -> staged ------------> publishing(t) -> published(t)
//       ^                |         |  ^                                     |
//       |     (it fails) |         |  |                        unpublish(t) |
//       |                v         v  +---------- unpublishing(t) <---------+
//       +------------ unstaging <--+
//                       unstage, once nothing is published
//
// An arrow into a state ending in -ing is written before the act, the one out of it after the act. `reached`
// is known from `staged` on, and kept where a volume that pods have is staged again.
struct VolumeRecord {
  std::string handle;  // "<backend>/<id>"
  std::string kind;
  std::string boot_id;  // of the last stage: a mount does not outlive the kernel it was made in
  StageState state = StageState::kStaging;
  std::string staging_path;
  drivers::Access access;
  drivers::VolumeMode mode = drivers::VolumeMode::kFilesystem;
  drivers::AccessMode access_mode = drivers::AccessMode::kSingleNodeWriter;
  std::string fs_type;
  std::string options;
  bool read_only = false;
  mount::Reached reached;
  std::map<std::string, Publication> publications;  // by target path
};

// UNIMPLEMENTED for an access that this version cannot mount, hence does not journal.
absl::StatusOr<base::Json> to_json(const VolumeRecord& record);
// INVALID_ARGUMENT naming the field; UNIMPLEMENTED for a schema version newer than ours.
absl::StatusOr<VolumeRecord> record_from_json(const base::Json& json);

// Files "<handle, escaped>.json" in one directory. Not thread safe for one volume: the caller holds the
// volume's lock.
class Journal {
 public:
  // Asked before each change to the disk; an error is that change's result. Tests make the disk fail with it.
  using Hook = std::function<absl::Status(const std::string& path)>;
  explicit Journal(std::string directory, Hook hook = {});

  struct Loaded {
    std::vector<VolumeRecord> records;
    std::vector<std::string>
        set_aside;  // paths, renamed: "*.corrupt", or "*.newer" when a newer program wrote them
  };
  // Creates the directory. What cannot be read is set aside and logged, never guessed at.
  absl::StatusOr<Loaded> load();
  absl::Status write(const VolumeRecord& record);  // on the disk when it returns
  absl::Status remove(const std::string& handle);

  std::string path_of(const std::string& handle) const;

 private:
  std::string directory_;
  Hook hook_;
};

}  // namespace collage::node
