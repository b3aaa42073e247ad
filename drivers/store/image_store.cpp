#include "drivers/store/image_store.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/json.h"
#include "base/quantity.h"
#include "base/random.h"
#include "base/status.h"

namespace collage::drivers {

namespace {

using base::Context;
using base::Json;

constexpr char kRecord[] = "volume.json";
constexpr char kImageStem[] = "image.";
constexpr char kCreating[] = ".creating-";
constexpr char kRemoving[] = ".removing-";
constexpr int64_t kRecordVersion = 1;
// What the directory entries, records and extents of one volume may take beside its bytes.
constexpr int64_t kOverheadBytes = 1 << 20;
constexpr int kPageEntries = 500;
// Lost races that a call repairs by itself before it asks its caller to come again.
constexpr int kAttempts = 8;

std::string record_of(const NewVolume& wanted) {
  Json record = {{"version", kRecordVersion}, {"name", wanted.name}, {"capacityBytes", wanted.bytes}};
  Json tags = Json::object();
  for (const auto& [key, value] : wanted.tags) tags[key] = value;
  record["tags"] = std::move(tags);
  return base::dump_json_pretty(record) + "\n";
}

bool same_volume(const StoredVolume& volume, const NewVolume& wanted) {
  return volume.capacity_bytes >= wanted.required_bytes &&
         (wanted.limit_bytes == 0 || volume.capacity_bytes <= wanted.limit_bytes);
}

}  // namespace

std::optional<int64_t> generation_of(absl::string_view name, absl::string_view stem) {
  int64_t generation = 0;
  if (!absl::ConsumePrefix(&name, stem) || name.empty() || name.front() == '+' || name.front() == '-')
    return std::nullopt;
  if (!absl::SimpleAtoi(name, &generation) || absl::StrCat(generation) != name) return std::nullopt;
  return generation;
}

std::optional<int64_t> image_generation(absl::string_view name) {
  const size_t dash = name.find('-');
  if (dash != absl::string_view::npos) {
    const absl::string_view token = name.substr(dash + 1);
    const bool plain = std::all_of(token.begin(), token.end(),
                                   [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); });
    if (token.empty() || !plain) return std::nullopt;
    name = name.substr(0, dash);
  }
  return generation_of(name, kImageStem);
}

std::string image_name(int64_t generation, absl::string_view token) {
  return absl::StrCat(kImageStem, generation, "-", token);
}

std::string ImageStore::volume_path(const std::string& name) const {
  return absl::StrCat(directory_.path(), "/", name);
}

absl::StatusOr<StoredVolume> ImageStore::parse(const std::string& name, const std::string& text) const {
  COLLAGE_ASSIGN_OR_RETURN(const Json record, base::parse_json(text));
  const int64_t version = base::get_int(record, "/version");
  if (version > kRecordVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("it was written by a newer version of this program (format ", version, ")"));
  }
  if (version != kRecordVersion) return absl::InvalidArgumentError("it has no format version");
  if (base::get_string(record, "/name") != name) {
    return absl::InvalidArgumentError(
        absl::StrCat("it names the volume \"", base::get_string(record, "/name"), "\""));
  }
  StoredVolume volume{.name = name, .capacity_bytes = base::get_int(record, "/capacityBytes")};
  if (volume.capacity_bytes <= 0) return absl::InvalidArgumentError("it has no capacity");
  if (const Json* tags = base::find(record, "/tags"); tags != nullptr && tags->is_object()) {
    for (const auto& [key, value] : tags->items()) {
      if (value.is_string()) volume.tags[key] = value.get<std::string>();
    }
  }
  return volume;
}

absl::StatusOr<std::optional<StoredVolume>> ImageStore::find(const std::string& name) const {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    auto found = look(name);
    if (!absl::IsNotFound(found.status())) return found;
  }
  return absl::AbortedError(absl::StrCat("volume ", name, " is being changed by others at the same time"));
}

// Reads one volume. NOT_FOUND: a part of it went away meanwhile, look again. A directory with neither a
// record nor an image is none of ours.
absl::StatusOr<std::optional<StoredVolume>> ImageStore::look(const std::string& name) const {
  const std::string path = volume_path(name);
  struct stat found {};
  if (absl::Status status = directory_.refresh(path); !status.ok()) {
    if (absl::IsNotFound(status)) return std::nullopt;
    return status;
  }
  if (lstat(path.c_str(), &found) != 0 || !S_ISDIR(found.st_mode)) return std::nullopt;
  const auto files = directory_.list(path);
  COLLAGE_RETURN_IF_ERROR(files.status());

  int64_t latest = -1;
  std::string image;
  for (const std::string& file : *files) {
    const int64_t generation = image_generation(file).value_or(-1);
    if (generation <= latest) continue;
    latest = generation;
    image = absl::StrCat(path, "/", file);
  }
  const bool recorded = std::binary_search(files->begin(), files->end(), kRecord);
  if (!recorded && latest < 0) return std::nullopt;

  const auto damaged = [&](absl::string_view problem) {
    return absl::DataLossError(
        absl::StrCat("volume ", name, " in ", directory_.describe(), " is damaged: ", problem,
                     "; nothing was changed: restore it, or remove ", path, " by hand"));
  };
  if (!recorded) return damaged(absl::StrCat(kRecord, " is missing"));
  const auto text = directory_.read(absl::StrCat(path, "/", kRecord));
  if (absl::IsNotFound(text.status())) return text.status();
  if (!text.ok()) return damaged(absl::StrCat(kRecord, " is unreadable: ", text.status().message()));
  auto volume = parse(name, *text);
  if (!volume.ok()) return damaged(absl::StrCat(kRecord, " is unreadable: ", volume.status().message()));
  if (latest < 0) return damaged("its image file is missing");
  if (stat(image.c_str(), &found) != 0) return directory_.error(errno, absl::StrCat("look at ", image));
  if (found.st_size < volume->capacity_bytes) {
    return damaged(absl::StrCat(image, " has ", found.st_size, " of ", volume->capacity_bytes, " bytes"));
  }
  return *std::move(volume);
}

absl::StatusOr<StoredVolume> ImageStore::create(const Context& context, const NewVolume& wanted) {
  COLLAGE_ASSIGN_OR_RETURN(const NameLocks::Hold hold, locks_.acquire(context, wanted.name));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    COLLAGE_RETURN_IF_ERROR(context.status());
    COLLAGE_ASSIGN_OR_RETURN(const std::optional<StoredVolume> volume, find(wanted.name));
    if (volume.has_value()) {
      if (!same_volume(*volume, wanted)) {
        return absl::AlreadyExistsError(
            absl::StrCat("volume ", wanted.name, " exists in ", directory_.describe(), " with ",
                         volume->capacity_bytes, " bytes, but at least ", wanted.required_bytes,
                         wanted.limit_bytes == 0 ? "" : absl::StrCat(" and at most ", wanted.limit_bytes),
                         " are asked for"));
      }
      COLLAGE_RETURN_IF_ERROR(sweep(wanted.name));
      return *volume;
    }
    COLLAGE_RETURN_IF_ERROR(make_room(wanted));
    // Built, or lost to another builder: either way the volume is found in the next round.
    absl::Status built = build(context, wanted);
    if (!built.ok() && !absl::IsNotFound(built) && !absl::IsAlreadyExists(built)) return built;
    if (absl::IsAlreadyExists(built)) {
      COLLAGE_ASSIGN_OR_RETURN(const std::optional<StoredVolume> winner, find(wanted.name));
      if (!winner.has_value()) {
        return absl::FailedPreconditionError(absl::StrCat(volume_path(wanted.name), " in the way on ",
                                                          directory_.node(),
                                                          " is not a volume: move it elsewhere"));
      }
    }
  }
  return absl::AbortedError(
      absl::StrCat("volume ", wanted.name, " is being made by others at the same time"));
}

absl::StatusOr<StoreDirectory::Room> ImageStore::room() const {
  COLLAGE_ASSIGN_OR_RETURN(StoreDirectory::Room room, directory_.room());
  room.available_bytes = std::max<int64_t>(room.available_bytes - kOverheadBytes, 0);
  return room;
}

// Refuses a volume that cannot fit. What an earlier attempt at the same volume left behind is not counted
// against it.
absl::Status ImageStore::make_room(const NewVolume& wanted) {
  for (bool swept : {false, true}) {
    COLLAGE_ASSIGN_OR_RETURN(const StoreDirectory::Room now, room());
    if (now.total_bytes == 0) return absl::OkStatus();
    const bool sparse = wanted.allocation == Allocation::kSparse;
    const int64_t limit = sparse ? now.total_bytes : now.available_bytes;
    if (wanted.bytes <= limit) return absl::OkStatus();
    if (swept) {
      return absl::ResourceExhaustedError(
          absl::StrCat("volume ", wanted.name, " wants ", base::human_bytes(wanted.bytes), ", but ",
                       directory_.describe(), " has ", base::human_bytes(limit),
                       sparse ? " in all" : " available", ": make room there, or ask for a smaller volume"));
    }
    COLLAGE_RETURN_IF_ERROR(sweep(wanted.name));
  }
  return absl::OkStatus();
}

// NOT_FOUND or ALREADY_EXISTS: another builder was first.
absl::Status ImageStore::build(const Context& context, const NewVolume& wanted) {
  const std::string nursery = absl::StrCat(directory_.path(), "/", kCreating, wanted.name);
  const std::string workshop = absl::StrCat(nursery, "/", base::random_hex(8));
  if (absl::Status made = directory_.make_directory(nursery); !made.ok() && !absl::IsAlreadyExists(made))
    return made;
  COLLAGE_RETURN_IF_ERROR(directory_.make_directory(workshop));
  absl::Status built = fill(context, wanted, workshop);
  if (built.ok()) built = directory_.rename(workshop, volume_path(wanted.name));
  if (!built.ok()) {
    // Best effort: what stays is tidied up later, and the first error is the one that tells.
    directory_.remove_tree(workshop).IgnoreError();
    directory_.remove_empty(nursery).IgnoreError();
    return built;
  }
  return directory_.sync(directory_.path());
}

absl::Status ImageStore::fill(const Context& context, const NewVolume& wanted, const std::string& workshop) {
  COLLAGE_RETURN_IF_ERROR(make_image_file(context, directory_, absl::StrCat(workshop, "/", kFirstImage),
                                          wanted.bytes, wanted.allocation));
  COLLAGE_RETURN_IF_ERROR(directory_.write_new(absl::StrCat(workshop, "/", kRecord), record_of(wanted)));
  return directory_.sync(workshop);
}

// Deletes a directory that is no volume, or is to be none any more: first out of everybody's reach, then for
// good. Needs no room on the disk, so that a full one can be emptied. NOT_FOUND when another was first.
absl::Status ImageStore::discard(const std::string& name, const std::string& directory) {
  const std::string grave = absl::StrCat(directory_.path(), "/", kRemoving, name);
  absl::Status moved = directory_.rename(directory, grave);
  for (int attempt = 0; attempt < kAttempts && absl::IsAlreadyExists(moved); ++attempt) {
    COLLAGE_RETURN_IF_ERROR(directory_.remove_tree(grave));
    moved = directory_.rename(directory, grave);
  }
  if (absl::IsAlreadyExists(moved))
    return absl::AbortedError(absl::StrCat(grave, " is in use by others at the same time"));
  COLLAGE_RETURN_IF_ERROR(moved);
  COLLAGE_RETURN_IF_ERROR(directory_.sync(directory_.path()));
  return directory_.remove_tree(grave);
}

// Deletes whatever calls on this name have left behind. Costs two look-ups when that is nothing.
absl::Status ImageStore::sweep(const std::string& name) {
  const std::string nursery = absl::StrCat(directory_.path(), "/", kCreating, name);
  const std::string grave = absl::StrCat(directory_.path(), "/", kRemoving, name);
  const auto builds = directory_.list(nursery);
  if (!builds.ok() && !absl::IsNotFound(builds.status())) return builds.status();
  if (builds.ok()) {
    for (const std::string& build : *builds) {
      absl::Status discarded = discard(name, absl::StrCat(nursery, "/", build));
      if (!discarded.ok() && !absl::IsNotFound(discarded)) return discarded;
    }
    COLLAGE_RETURN_IF_ERROR(directory_.remove_empty(nursery));
  }
  if (absl::Status there = directory_.refresh(grave); !there.ok())
    return absl::IsNotFound(there) ? absl::OkStatus() : there;
  return directory_.remove_tree(grave);
}

absl::Status ImageStore::remove(const Context& context, const std::string& name,
                                const std::function<absl::Status(const std::string& path)>& guard) {
  COLLAGE_ASSIGN_OR_RETURN(const NameLocks::Hold hold, locks_.acquire(context, name));
  COLLAGE_ASSIGN_OR_RETURN(const std::optional<StoredVolume> volume, find(name));
  if (!volume.has_value()) return sweep(name);
  if (guard) COLLAGE_RETURN_IF_ERROR(guard(volume_path(name)));
  absl::Status discarded = discard(name, volume_path(name));
  if (absl::IsNotFound(discarded)) {
    return absl::AbortedError(absl::StrCat("volume ", name, " is being removed by others at the same time"));
  }
  COLLAGE_RETURN_IF_ERROR(discarded);
  return sweep(name);
}

absl::StatusOr<StoredPage> ImageStore::list(const Context& context, const std::string& token,
                                            int max_entries) const {
  if (max_entries < 0) return absl::InvalidArgumentError("max entries: must not be negative");
  if (!token.empty() && !validate_volume_name(token).ok()) {
    return absl::AbortedError("the token is not one of this list: start over without it");
  }
  COLLAGE_RETURN_IF_ERROR(directory_.refresh(directory_.path()));
  COLLAGE_ASSIGN_OR_RETURN(const std::vector<std::string> names, directory_.list(directory_.path()));
  const size_t most = max_entries == 0 ? kPageEntries : static_cast<size_t>(max_entries);
  StoredPage page;
  for (auto name = std::upper_bound(names.begin(), names.end(), token); name != names.end(); ++name) {
    COLLAGE_RETURN_IF_ERROR(context.status());
    if (!validate_volume_name(*name).ok()) continue;
    auto volume = find(*name);
    if (!volume.ok() && absl::IsUnavailable(volume.status())) return volume.status();
    if (volume.ok() && !volume->has_value()) continue;
    if (page.volumes.size() == most) {
      page.next_token = page.volumes.back().name;
      return page;
    }
    // One volume that cannot be read does not hide the others.
    page.volumes.push_back(
        volume.ok() ? **std::move(volume)
                    : StoredVolume{.name = *name, .problem = std::string(volume.status().message())});
  }
  return page;
}

// Whether nothing below was written to for a while, by the clock of the file system, which may be another
// machine's.
absl::StatusOr<bool> ImageStore::idle(const std::string& creating, int64_t idle_seconds) const {
  COLLAGE_RETURN_IF_ERROR(directory_.step(absl::StrCat("touch ", creating)));
  if (utimensat(AT_FDCWD, creating.c_str(), nullptr, 0) != 0)
    return directory_.error(errno, absl::StrCat("touch ", creating));
  struct stat found {};
  if (stat(creating.c_str(), &found) != 0) return directory_.error(errno, absl::StrCat("look at ", creating));
  const int64_t now = found.st_mtim.tv_sec;
  COLLAGE_ASSIGN_OR_RETURN(const std::vector<std::string> builds, directory_.list(creating));
  for (const std::string& build : builds) {
    for (const std::string& path :
         {absl::StrCat(creating, "/", build), absl::StrCat(creating, "/", build, "/", kFirstImage)}) {
      if (stat(path.c_str(), &found) == 0 && now - found.st_mtim.tv_sec < idle_seconds) return false;
    }
  }
  // That includes an empty one: a builder who was about to use it makes it anew.
  return true;
}

absl::StatusOr<int> ImageStore::tidy(const Context& context, int64_t idle_seconds) {
  COLLAGE_ASSIGN_OR_RETURN(const std::vector<std::string> names, directory_.list(directory_.path()));
  int swept = 0;
  for (const std::string& entry : names) {
    COLLAGE_RETURN_IF_ERROR(context.status());
    absl::string_view name = entry;
    const bool creating = absl::ConsumePrefix(&name, kCreating);
    if (!creating && !absl::ConsumePrefix(&name, kRemoving)) continue;
    if (!validate_volume_name(name).ok()) continue;
    const std::string volume(name);
    const std::optional<NameLocks::Hold> hold = locks_.try_acquire(volume);
    if (!hold.has_value()) continue;
    const std::string path = absl::StrCat(directory_.path(), "/", entry);
    if (!creating) {
      COLLAGE_RETURN_IF_ERROR(directory_.remove_tree(path));
      ++swept;
      continue;
    }
    COLLAGE_ASSIGN_OR_RETURN(const bool abandoned, idle(path, idle_seconds));
    if (!abandoned) continue;
    COLLAGE_RETURN_IF_ERROR(sweep(volume));
    ++swept;
  }
  return swept;
}

}  // namespace collage::drivers
