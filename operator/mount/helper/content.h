#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// What is on a block device, and the mark that we put on one while we format it.
namespace collage::mount::helper {

enum class Holds {
  kNothing,     // no signature known to libblkid, and the first and the last MiB are zero
  kFileSystem,  // exactly one, of type `type`
  kOurHalf,     // a file system that we began to make and did not finish; nobody can have mounted it
  kOther,       // anything else: RAID, LVM, LUKS, swap, a partition table, several at once, bytes that nobody
                // knows
};

struct Content {
  Holds holds = Holds::kOther;
  std::string type;  // "ext4", "crypto_LUKS", "gpt", ...; "unknown data" when nothing is known of it
};

// `uuid`: the one that a file system made for this volume gets; how our own half-made one is told from
// another's.
absl::StatusOr<Content> read_content(int fd, const std::string& device, uint64_t size,
                                     const std::string& uuid);

// mkfs.ext4 leaves no trace that proves a half-made file system to be ours. So a mark is written to the last
// 4 KiB of a device that was proved blank, mkfs.ext4 is told to keep off the last 64 KiB, and the mark is
// taken away when it is done, before the first mount. Crash before the mark: blank. Crash after it: the mark,
// with our uuid, proves that nothing there was ever used. mkfs.xfs needs none: it writes its superblock
// (uuid, "in progress") first and completes it last.
inline constexpr uint64_t kMarkRoom = 64 << 10;
absl::Status write_mark(int fd, const std::string& device, uint64_t size, const std::string& uuid);
absl::Status clear_mark(int fd, const std::string& device, uint64_t size);

}  // namespace collage::mount::helper
