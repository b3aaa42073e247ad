#include "drivers/image/ownership.h"

#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/random.h"
#include "base/status.h"
#include "drivers/store/image_store.h"

namespace collage::drivers {

namespace {

constexpr char kOwner[] = "owner.";
constexpr char kReleased[] = "released.";
constexpr char kDraft[] = "clone.";  // of an image that is being made
constexpr char kReadWrite[] = "rw";
constexpr char kReadOnly[] = "ro";
constexpr int kAttempts = 8;

std::string note_of(const Owner& owner) {
  return absl::StrCat(owner.read_only ? kReadOnly : kReadWrite, ":", owner.image, ":", owner.token, ":",
                      owner.node);
}

// An image that no holder uses or will get, now that it is settled that `generation` uses `image`. A copy
// made for a later generation is none: a fence may be at work on it. A draft may be in the making too: its
// maker sees that it is gone, and begins again.
bool is_left_behind(const std::string& file, int64_t generation, const std::string& image) {
  if (absl::StartsWith(file, kDraft)) return true;
  return file != image && image_generation(file).value_or(generation + 1) <= generation;
}

}  // namespace

std::string Ownership::record(const char* stem, int64_t generation) const {
  return absl::StrCat(path_, "/", stem, generation);
}

absl::StatusOr<Owner> Ownership::parse(int64_t generation) const {
  const std::string path = record(kOwner, generation);
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0) return directory_.error(errno, absl::StrCat("look at ", path));
  if (S_ISREG(found.st_mode) && found.st_size == 0) return Owner{.generation = generation, .removing = true};
  const auto damaged = [&] {
    return absl::DataLossError(
        absl::StrCat("volume ", volume_, " in ", directory_.describe(), ": the record ", path,
                     " of its holder is damaged; when no node uses the volume, remove that file by hand"));
  };
  if (!S_ISLNK(found.st_mode)) return damaged();
  COLLAGE_ASSIGN_OR_RETURN(const std::string note, directory_.read_note(path));
  const std::vector<std::string> parts = absl::StrSplit(note, absl::MaxSplits(':', 3));
  if (parts.size() != 4 || (parts[0] != kReadWrite && parts[0] != kReadOnly) || parts[3].empty())
    return damaged();
  if (!image_generation(parts[1]).has_value()) return damaged();
  return Owner{.generation = generation,
               .node = parts[3],
               .read_only = parts[0] == kReadOnly,
               .image = parts[1],
               .token = parts[2]};
}

// The image that the end of a generation leaves to the next one: its own, or the copy that a fence made.
absl::StatusOr<std::string> Ownership::successor_image(int64_t generation, const std::string& image) const {
  const std::string path = record(kReleased, generation);
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0) return directory_.error(errno, absl::StrCat("look at ", path));
  if (S_ISREG(found.st_mode)) return image;
  COLLAGE_ASSIGN_OR_RETURN(std::string note, directory_.read_note(path));
  if (image_generation(note) == generation + 1) return note;
  return absl::DataLossError(
      absl::StrCat("volume ", volume_, " in ", directory_.describe(), ": the record ", path,
                   " of its image is damaged; it must be a symbolic link to the file image.", generation + 1,
                   "-* that is there"));
}

absl::StatusOr<Owner> Ownership::current() const {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    COLLAGE_RETURN_IF_ERROR(directory_.refresh(path_));
    COLLAGE_ASSIGN_OR_RETURN(const std::vector<std::string> files, directory_.list(path_));
    int64_t latest = 0;
    std::set<int64_t> released;
    for (const std::string& file : files) {
      latest = std::max(latest, generation_of(file, kOwner).value_or(0));
      if (const auto generation = generation_of(file, kReleased)) released.insert(*generation);
    }
    if (latest == 0) return Owner{.image = kFirstImage};
    auto owner = parse(latest);
    if (absl::IsNotFound(owner.status())) continue;  // tidied away for newer ones since the listing
    COLLAGE_RETURN_IF_ERROR(owner.status());
    owner->released = released.contains(latest);
    if (!owner->released || owner->removing) return owner;
    auto image = successor_image(latest, owner->image);
    if (absl::IsNotFound(image.status())) continue;  // tidied away likewise
    COLLAGE_RETURN_IF_ERROR(image.status());
    owner->image = *std::move(image);
    return owner;
  }
  return absl::AbortedError(absl::StrCat("volume ", volume_, " changes hands too often to tell its holder"));
}

absl::Status Ownership::settle(int64_t generation, const std::string& image) const {
  COLLAGE_RETURN_IF_ERROR(directory_.sync(path_));
  COLLAGE_ASSIGN_OR_RETURN(const std::vector<std::string> files, directory_.list(path_));
  std::vector<std::string> old;
  for (const std::string& file : files) {
    auto found = generation_of(file, kOwner);
    if (found.value_or(0) > generation) {
      COLLAGE_RETURN_IF_ERROR(directory_.unlink(record(kOwner, generation)));
      return absl::AbortedError(absl::StrCat("volume ", volume_, " changed hands meanwhile"));
    }
    if (!found.has_value()) found = generation_of(file, kReleased);
    if (found.value_or(generation) < generation - 1 || is_left_behind(file, generation, image))
      old.push_back(file);
  }
  for (const std::string& file : old)
    COLLAGE_RETURN_IF_ERROR(directory_.unlink(absl::StrCat(path_, "/", file)));
  return absl::OkStatus();
}

absl::Status Ownership::tidy_images(int64_t generation, const std::string& image) const {
  COLLAGE_ASSIGN_OR_RETURN(const std::vector<std::string> files, directory_.list(path_));
  for (const std::string& file : files) {
    if (!is_left_behind(file, generation, image)) continue;
    COLLAGE_RETURN_IF_ERROR(directory_.unlink(absl::StrCat(path_, "/", file)));
  }
  return absl::OkStatus();
}

absl::StatusOr<Owner> Ownership::take(const std::string& node, bool read_only) const {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    COLLAGE_ASSIGN_OR_RETURN(Owner owner, current());
    if (owner.removing)
      return absl::FailedPreconditionError(absl::StrCat("volume ", volume_, " is being removed"));
    if (owner.held() && owner.node != node) {
      return absl::FailedPreconditionError(absl::StrCat("volume ", volume_, " is attached to ", owner.node,
                                                        " since generation ", owner.generation,
                                                        ": detach it there first"));
    }
    if (owner.held() && owner.read_only != read_only) {
      return absl::AlreadyExistsError(absl::StrCat("volume ", volume_, " is attached to ", node, " ",
                                                   owner.read_only ? "read-only" : "read-write",
                                                   ": detach it first"));
    }
    if (owner.held()) return owner;
    const Owner mine{.generation = owner.generation + 1,
                     .node = node,
                     .read_only = read_only,
                     .image = owner.image,
                     .token = base::random_hex(4)};
    absl::Status written = directory_.write_note(record(kOwner, mine.generation), note_of(mine));
    // Another was faster; or this one, and a network file system lost the answer and asked its server again.
    // Either way the next look tells.
    if (absl::IsAlreadyExists(written)) continue;
    COLLAGE_RETURN_IF_ERROR(written);
    absl::Status settled = settle(mine.generation, mine.image);
    if (absl::IsAborted(settled)) continue;
    COLLAGE_RETURN_IF_ERROR(settled);
    return mine;
  }
  return absl::AbortedError(absl::StrCat("volume ", volume_, " changes hands too often to be attached"));
}

absl::Status Ownership::release(const std::string& node) const {
  COLLAGE_ASSIGN_OR_RETURN(const Owner owner, current());
  if (!owner.held() || (!node.empty() && owner.node != node)) return absl::OkStatus();
  absl::Status released = directory_.make_empty(record(kReleased, owner.generation));
  if (!released.ok() && !absl::IsAlreadyExists(released)) return released;
  return directory_.sync(path_);
}

absl::Status Ownership::fence(const std::string& node) const {
  std::optional<int64_t> meant;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    COLLAGE_ASSIGN_OR_RETURN(const Owner owner, current());
    // The hold that was to end is over, and a later one is none of our business.
    if (meant.value_or(owner.generation) != owner.generation) return absl::OkStatus();
    meant = owner.generation;
    if (owner.held() && !node.empty() && owner.node != node) return absl::OkStatus();
    // Over; if by a fence that was cut short, the image that it took away still lies there.
    if (!owner.held()) {
      const bool over = owner.released && !owner.removing;
      return over ? tidy_images(owner.generation + 1, owner.image) : absl::OkStatus();
    }
    const std::string token = base::random_hex(4);
    const std::string image = image_name(owner.generation + 1, token);
    const std::string draft = absl::StrCat(path_, "/", kDraft, token);
    // From this instant on, what the holder writes is not in the copy.
    absl::Status copied = directory_.clone(absl::StrCat(path_, "/", owner.image), draft);
    if (absl::IsUnimplemented(copied)) {
      return absl::UnimplementedError(absl::StrCat(
          "volume ", volume_, " is attached to ", owner.node, ", and ", copied.message(),
          ": it cannot be taken from that node before there is other proof that the node writes no more"));
    }
    if (copied.ok()) copied = directory_.rename(draft, absl::StrCat(path_, "/", image));
    // Somebody changed the records meanwhile, and tidied up.
    if (absl::IsNotFound(copied)) continue;
    COLLAGE_RETURN_IF_ERROR(copied);
    COLLAGE_RETURN_IF_ERROR(directory_.sync(path_));
    // The decision: before it the volume is held as it was, after it the copy is the volume.
    absl::Status noted = directory_.write_note(record(kReleased, owner.generation), image);
    if (!noted.ok() && !absl::IsAlreadyExists(noted)) return noted;
    COLLAGE_RETURN_IF_ERROR(directory_.sync(path_));
    // It counts if this generation was still the last, and nobody else ended it. If it does not, the copy is
    // of no use to anybody: no name is used twice, so nobody else's image is meant.
    COLLAGE_ASSIGN_OR_RETURN(const Owner now, current());
    if (now.image != image) {
      COLLAGE_RETURN_IF_ERROR(directory_.unlink(absl::StrCat(path_, "/", image)));
      continue;
    }
    return now.held() ? absl::OkStatus() : tidy_images(now.generation + 1, image);
  }
  return absl::AbortedError(
      absl::StrCat("volume ", volume_, " changes hands too often to be taken from its holder"));
}

absl::Status Ownership::claim_removal() const {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    COLLAGE_ASSIGN_OR_RETURN(const Owner owner, current());
    if (owner.removing) return absl::OkStatus();
    if (owner.held()) {
      return absl::FailedPreconditionError(absl::StrCat("volume ", volume_, " is attached to ", owner.node,
                                                        ": detach it there before it is removed"));
    }
    absl::Status written = directory_.make_empty(record(kOwner, owner.generation + 1));
    if (absl::IsAlreadyExists(written)) continue;
    COLLAGE_RETURN_IF_ERROR(written);
    absl::Status settled = settle(owner.generation + 1, owner.image);
    if (absl::IsAborted(settled)) continue;
    return settled;
  }
  return absl::AbortedError(absl::StrCat("volume ", volume_, " changes hands too often to be removed"));
}

}  // namespace collage::drivers
