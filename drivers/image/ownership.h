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
  std::string image;  // the file that the holder uses, and the next one gets
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
//   released.<generation>   an empty file: that generation is over
//
//            take(node): owner.<g+1>                  release(node): released.<g>
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
// A forced take-over fits in: copy the image to image.<g+1>, write owner.<g+1> that names it, unlink the old
// image.
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
  // FAILED_PRECONDITION naming the holder while the volume is held. Afterwards nobody can take it.
  absl::Status claim_removal() const;

 private:
  std::string record(const char* stem, int64_t generation) const;
  absl::StatusOr<Owner> parse(int64_t generation) const;
  // Makes sure that the record just written counts, and tidies older ones away. ABORTED: it does not, look
  // again.
  absl::Status settle(int64_t generation) const;

  const StoreDirectory& directory_;
  const std::string volume_;
  const std::string path_;
};

}  // namespace collage::drivers
