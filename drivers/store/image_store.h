#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/context.h"
#include "drivers/store/image_file.h"
#include "drivers/store/name_locks.h"
#include "drivers/store/store_directory.h"
#include "drivers/volume.h"

namespace collage::drivers {

struct StoredVolume {
  std::string name;
  int64_t capacity_bytes = 0;
  StringMap tags;
  std::string problem;  // of list(): why it cannot be used; "" when all is well
};

struct StoredPage {
  std::vector<StoredVolume> volumes;
  std::string next_token;
};

struct NewVolume {
  std::string name;
  int64_t bytes = 0;           // its size if it is made now
  int64_t required_bytes = 0;  // a volume of that name is the same one when it has at least this
  int64_t limit_bytes = 0;     // and at most this; 0 for no limit
  Allocation allocation = Allocation::kFull;
  StringMap tags;
};

// Volumes as image files below one directory, which several nodes may share. On the disk:
//
//   <name>/volume.json          {"version": 1, "name", "capacityBytes", "tags"}
//   <name>/image.0              the bytes
//   <name>/image.<n>-<token>    a later copy, made for generation n, that takes their place
//   <name>/...                  what else a kind keeps with a volume
//   .creating-<name>/<token>/   a volume being built: one directory a builder
//   .removing-<name>/           a volume, or such a build, being deleted
//
// A volume exists exactly as long as <name>/ holds volume.json: it appears by one rename of a complete
// directory, and goes by one rename. Nothing else is ever a half state, whatever call is cut short:
//   create, before the rename      leaves .creating-<name>/: tidied by the next create or remove of that
//   name, else by tidy() create, after the rename       the volume exists; the next create finds it and
//   tidies up remove, before the rename      the volume exists as before remove, after the rename leaves
//   .removing-<name>/: tidied as above
// Nodes need no lock between them. Builders of one name work in directories of their own; the rename lets one
// win, and only the winner tidies up after the others, who then find its volume. A directory becomes
// .removing- before a file of it goes, so no builder can publish what somebody else has begun to delete.
//
// Reads and writes are thread safe. Errors as in StoreDirectory, and DATA_LOSS for a volume whose volume.json
// or image is damaged: it is reported, and never changed or deleted.
class ImageStore {
 public:
  explicit ImageStore(const StoreDirectory& directory) : directory_(directory) {}

  // ALREADY_EXISTS when the name has another size, RESOURCE_EXHAUSTED when the directory has no room for it.
  absl::StatusOr<StoredVolume> create(const base::Context& context, const NewVolume& wanted);
  // Works on a full disk. `guard` is asked, with the volume's directory, right before the volume goes; its
  // error is the answer. No such volume: OK.
  absl::Status remove(const base::Context& context, const std::string& name,
                      const std::function<absl::Status(const std::string& path)>& guard);
  absl::StatusOr<std::optional<StoredVolume>> find(const std::string& name) const;
  // By name. A token is the last name seen; ABORTED when it is not one.
  absl::StatusOr<StoredPage> list(const base::Context& context, const std::string& token,
                                  int max_entries) const;
  // What a volume could take now; the total is 0 when the file system does not tell.
  absl::StatusOr<StoreDirectory::Room> room() const;
  // Removes what calls that were cut short left behind: deletions at once, builds when nothing was written to
  // them for `idle_seconds` and nobody in this process is at them. Says how many.
  absl::StatusOr<int> tidy(const base::Context& context, int64_t idle_seconds = 900);

  std::string volume_path(const std::string& name) const;

 private:
  absl::StatusOr<std::optional<StoredVolume>> look(const std::string& name) const;
  absl::Status make_room(const NewVolume& wanted);
  absl::Status build(const base::Context& context, const NewVolume& wanted);
  absl::Status fill(const base::Context& context, const NewVolume& wanted, const std::string& workshop);
  absl::Status discard(const std::string& name, const std::string& directory);
  absl::Status sweep(const std::string& name);
  absl::StatusOr<bool> idle(const std::string& creating, int64_t idle_seconds) const;
  absl::StatusOr<StoredVolume> parse(const std::string& name, const std::string& text) const;

  const StoreDirectory& directory_;
  NameLocks locks_;
};

// The file of generation 0.
inline constexpr char kFirstImage[] = "image.0";
// "image.12" -> 12; nullopt for other names. `stem` is "image.".
std::optional<int64_t> generation_of(absl::string_view name, absl::string_view stem);
// The n of "image.<n>" and of "image.<n>-<token>", whose token is of lower-case letters and digits; nullopt
// for other names.
std::optional<int64_t> image_generation(absl::string_view name);
// The name of a copy made for generation n. The token is of this copy alone: no name is ever used twice.
std::string image_name(int64_t generation, absl::string_view token);

}  // namespace collage::drivers
