#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace collage::drivers {

// Called before each single change to the disk with what is about to be done. An error ends the call on the
// spot, with no tidying up, as a crash at that instant would: this is how tests walk through every crash
// window. Empty in production.
using StepHook = std::function<absl::Status(absl::string_view step)>;

// The directory that a file-backed backend keeps its volumes in, as one node sees it, and the few durable
// changes that are made in it. This is the one place where errors of the file system become canonical codes,
// with messages that name the directory, the node and the remedy:
//   the directory is missing, no directory, not writable or read-only   FAILED_PRECONDITION
//   full, or over a quota                                               RESOURCE_EXHAUSTED
//   a file larger than the file system takes                            OUT_OF_RANGE
//   a share that does not answer (ESTALE, EIO, ETIMEDOUT, ...)          UNAVAILABLE
//   ENOENT and EEXIST of single files: NOT_FOUND, ALREADY_EXISTS; callers turn them into what they mean
//   before they answer
// Paths given are absolute, below path(). Immutable, thread safe.
class StoreDirectory {
 public:
  enum class Need { kRead, kWrite };

  StoreDirectory(std::string path, std::string node, StepHook step = nullptr);

  const std::string& path() const { return path_; }
  const std::string& node() const { return node_; }
  std::string describe() const;  // "directory /srv/share on node-b"

  // Is the directory there, and can it be used? What every call begins with.
  absl::Status check(Need need) const;
  // Makes a network file system ask its server about `path` instead of its cache: what is read afterwards is
  // no older than this call. Without it a name made on another node may stay unseen for a minute.
  absl::Status refresh(const std::string& path) const;

  struct Room {
    int64_t total_bytes = 0;  // 0: the file system does not tell
    int64_t available_bytes = 0;
  };
  absl::StatusOr<Room> room() const;

  // Names below `path`, sorted.
  absl::StatusOr<std::vector<std::string>> list(const std::string& path) const;
  absl::StatusOr<std::string> read(const std::string& path) const;

  absl::Status make_directory(const std::string& path) const;  // 0700
  // A new file 0600, its content on the disk. Not atomic: for names that nobody reads yet.
  absl::Status write_new(const std::string& path, absl::string_view content) const;
  // A new file 0600 with the content that `from` has at one instant, sharing its blocks (FICLONE), on the
  // disk. Not atomic: as write_new(). UNIMPLEMENTED where the file system cannot clone.
  absl::Status clone(const std::string& from, const std::string& to) const;
  absl::Status rename(const std::string& from, const std::string& to) const;
  // link(2): the new name appears with its whole content, and at most one of several callers succeeds, on NFS
  // too.
  absl::Status link(const std::string& from, const std::string& to) const;
  // symlink(2) as a note: exclusive like link(), with its short text in the same step. Takes no block of the
  // disk.
  absl::Status write_note(const std::string& path, const std::string& text) const;
  absl::StatusOr<std::string> read_note(const std::string& path) const;
  absl::Status make_empty(
      const std::string& path) const;                  // a new empty file, exclusive; takes no block either
  absl::Status unlink(const std::string& path) const;  // OK when it is not there
  absl::Status remove_empty(const std::string& path) const;  // OK when it is not there, or not empty
  absl::Status remove_tree(const std::string& path) const;   // OK when it is not there; follows no link
  absl::Status sync(const std::string& directory) const;     // its entries are on the disk

  absl::Status step(absl::string_view what) const { return step_ ? step_(what) : absl::OkStatus(); }
  absl::Status error(int number, absl::string_view doing) const;

 private:
  std::string path_;
  std::string node_;
  StepHook step_;
};

// A volume's name is a file name here: 1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit.
// INVALID_ARGUMENT.
absl::Status validate_volume_name(absl::string_view name);

}  // namespace collage::drivers
