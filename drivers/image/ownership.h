#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "drivers/store/store_directory.h"

namespace collage::drivers {

// What the records of one volume say at present.
struct Owner {
  int64_t generation = 0;  // of the last record; 0: never attached
  std::string node;        // its holder
  bool read_only = false;
  std::string image;  // the file that the holder uses; once it is released, the one that the next holder gets
  std::string token;  // of one take(), to tell it from others
  bool released = false;
  bool removing = false;  // the volume is being deleted and can be attached no more

  bool held() const { return generation > 0 && !released && !removing; }
};

// Which node holds a volume, as records in the volume's directory that any node may write, without a lock
// between them:
//
//   owner.<generation>      a symbolic link used as a note: "<rw|ro>:<image>:<token>:<node>". It comes into
//   being with its whole
//                           content, at most one of several writers succeeds, and it takes no block, so that
//                           volumes of a full share can still be moved. An empty regular file instead: the
//                           volume is being removed.
//   released.<generation>   that generation is over. An empty file: the next one uses the same image. A
//   symbolic link used as a note: the next one uses the image that it names.
//
//            take(node): owner.<g+1>                  release(node), fence(node): released.<g>
//   free (g) ------------------------> held (g+1) by node -----------------------> free (g+1)
//     |                                                                              |
//     +----- claim_removal(): owner.<g+1>, empty ----> removing (for ever) <---------+
//
// The highest generation counts. Records are never changed, and releasing removes nothing: so a call that was
// delayed, for however long, can only speak about its own generation and never ends the hold of a later one.
// Older records go when a newer one is there; the one before the newest stays, so that a listing made
// meanwhile always meets a record as new as that. A writer that was delayed until the number it is about to
// use had been tidied away sees a higher one afterwards, and withdraws.
//
// A record is a lock, not a fence: a node whose hold was ended without its doing still has the image open and
// writes to it. fence() therefore clones the image to a new inode first, lets the end of the generation name
// the copy, and unlinks the old image. What the old holder writes later goes to an inode without a name,
// which the file system frees when the holder closes it. Cut short at any instant, the volume is either held
// as before, with at most a copy to be tidied away, or it is the copy.
//
// Each function reads the directory afresh. Immutable, thread safe. NOT_FOUND: there is no such volume.
// DATA_LOSS: a record is damaged; who holds the volume is then not guessed.
class Ownership {
 public:
  Ownership(const StoreDirectory& directory, std::string volume, std::string path)
      : directory_(directory), volume_(std::move(volume)), path_(std::move(path)) {}

  absl::StatusOr<Owner> current() const;
  // FAILED_PRECONDITION naming the holder when another node has it; ALREADY_EXISTS when `node` has it in the
  // other mode.
  absl::StatusOr<Owner> take(const std::string& node, bool read_only) const;
  // Not held by `node` ("": by anybody): OK, nothing changes.
  absl::Status release(const std::string& node) const;
  // As release(), of a holder that may still write. UNIMPLEMENTED where the file system cannot clone.
  absl::Status fence(const std::string& node) const;
  // FAILED_PRECONDITION naming the holder while the volume is held. Afterwards nobody can take it.
  absl::Status claim_removal() const;

 private:
  std::string record(const char* stem, int64_t generation) const;
  absl::StatusOr<Owner> parse(int64_t generation) const;
  absl::StatusOr<std::string> successor_image(int64_t generation, const std::string& image) const;
  absl::Status tidy_images(int64_t generation, const std::string& image) const;
  // Makes sure that the record just written counts, and tidies away older ones and images that are not
  // `image`, which this generation uses. ABORTED: it does not, look again.
  absl::Status settle(int64_t generation, const std::string& image) const;

  const StoreDirectory& directory_;
  const std::string volume_;
  const std::string path_;
};

}  // namespace collage::drivers
