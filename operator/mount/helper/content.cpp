#include "operator/mount/helper/content.h"

#include <blkid/blkid.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
#include <vector>

#include "base/status.h"
#include "operator/mount/helper/helper.h"

namespace collage::mount::helper {
namespace {

constexpr uint64_t kEdge = 1 << 20;  // every signature that libblkid knows lies this near to an end
constexpr int kSamples = 64;         // between the ends: data of an application that wrote no signature
constexpr size_t kMarkBytes = 4096;
constexpr char kMarkMagic[] = "collage: formatting, not yet used: ";

using Probe = std::unique_ptr<blkid_struct_probe, decltype(&blkid_free_probe)>;

absl::StatusOr<std::vector<char>> read_at(int fd, const std::string& device, uint64_t offset, size_t bytes) {
  std::vector<char> data(bytes);
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = ::pread(fd, data.data() + done, bytes - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_status(errno, "read " + device);
    if (n == 0) return absl::InternalError("read " + device + ": it ends early");
    done += static_cast<size_t>(n);
  }
  return data;
}

bool all_zero(const char* data, size_t bytes) {
  return bytes == 0 || (data[0] == 0 && std::memcmp(data, data + 1, bytes - 1) == 0);
}

std::string mark_text(const std::string& uuid) {
  return kMarkMagic + uuid + "\n";
}

absl::Status write_tail(int fd, const std::string& device, uint64_t size, const std::string& content) {
  std::vector<char> block(kMarkBytes, 0);
  std::memcpy(block.data(), content.data(), content.size());
  const ssize_t n = ::pwrite(fd, block.data(), block.size(), static_cast<off_t>(size - kMarkBytes));
  if (n != static_cast<ssize_t>(block.size())) return errno_status(n < 0 ? errno : EIO, "write " + device);
  if (::fsync(fd) != 0) return errno_status(errno, "flush " + device);
  return absl::OkStatus();
}

// XFS on disk: magic at 0, uuid at 32, sb_inprogress at 126.
bool half_made_xfs(const std::vector<char>& head, const std::string& uuid) {
  if (head.size() < 512 || std::memcmp(head.data(), "XFSB", 4) != 0 || head[126] == 0) return false;
  std::string text;
  for (int i = 0; i < 16; ++i) {
    char byte[4];
    std::snprintf(byte, sizeof byte, "%02x", static_cast<unsigned char>(head[32 + i]));
    text += byte;
    if (i == 3 || i == 5 || i == 7 || i == 9) text += '-';
  }
  return text == uuid;
}

std::string value(blkid_probe probe, const char* name) {
  const char* data = nullptr;
  return blkid_probe_lookup_value(probe, name, &data, nullptr) == 0 && data != nullptr ? data : "";
}

absl::StatusOr<Probe> open_probe(int fd, const std::string& device) {
  Probe probe(blkid_new_probe(), blkid_free_probe);
  if (!probe || blkid_probe_set_device(probe.get(), fd, 0, 0) != 0)
    return absl::InternalError("cannot probe " + device);
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_enable_partitions(probe.get(), 1);
  return probe;
}

// Every signature, those with a wrong checksum too: a damaged superblock is still somebody's data.
absl::StatusOr<std::set<std::string>> signatures(int fd, const std::string& device) {
  COLLAGE_ASSIGN_OR_RETURN(const Probe probe, open_probe(fd, device));
  blkid_probe_set_superblocks_flags(probe.get(),
                                    BLKID_SUBLKS_TYPE | BLKID_SUBLKS_MAGIC | BLKID_SUBLKS_BADCSUM);
  blkid_probe_set_partitions_flags(probe.get(), BLKID_PARTS_MAGIC | BLKID_PARTS_FORCE_GPT);
  std::set<std::string> found;
  int result = 0;
  while ((result = blkid_do_probe(probe.get())) == 0) {
    const std::string type = value(probe.get(), "TYPE"), table = value(probe.get(), "PTTYPE");
    found.insert(!type.empty() ? type : !table.empty() ? table + " partition table" : "something");
  }
  if (result < 0) return absl::UnavailableError("probe " + device + ": it cannot be read");
  return found;
}

// The type of the one file system that is there beyond doubt, "" otherwise.
absl::StatusOr<std::string> sole_file_system(int fd, const std::string& device) {
  COLLAGE_ASSIGN_OR_RETURN(const Probe probe, open_probe(fd, device));
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE);
  const int result = blkid_do_safeprobe(probe.get());  // -2: several
  if (result == -1) return absl::UnavailableError("probe " + device + ": it cannot be read");
  if (result != 0 || value(probe.get(), "USAGE") != "filesystem") return "";
  return value(probe.get(), "TYPE");
}

// Zeros at the ends prove nothing when a raw block volume held data of its own format. Not every byte is
// read, of a terabyte that takes an hour: pages evenly spread over it.
absl::StatusOr<bool> blank_between(int fd, const std::string& device, uint64_t size) {
  for (int i = 1; i < kSamples; ++i) {
    const uint64_t at = size / kSamples * i / kMarkBytes * kMarkBytes;
    COLLAGE_ASSIGN_OR_RETURN(const std::vector<char> page, read_at(fd, device, at, kMarkBytes));
    if (!all_zero(page.data(), page.size())) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<Content> read_content(int fd, const std::string& device, uint64_t size,
                                     const std::string& uuid) {
  if (size < kMarkRoom) return absl::FailedPreconditionError(device + " is smaller than 64 KiB");
  const size_t edge = static_cast<size_t>(std::min(kEdge, size));
  COLLAGE_ASSIGN_OR_RETURN(const std::vector<char> head, read_at(fd, device, 0, edge));
  COLLAGE_ASSIGN_OR_RETURN(const std::vector<char> tail, read_at(fd, device, size - edge, edge));
  const char* last = tail.data() + edge - kMarkBytes;
  const std::string mark = mark_text(uuid);
  if (std::memcmp(last, mark.data(), mark.size()) == 0 &&
      all_zero(last + mark.size(), kMarkBytes - mark.size())) {
    return Content{Holds::kOurHalf, "ext4"};
  }
  if (half_made_xfs(head, uuid)) return Content{Holds::kOurHalf, "xfs"};
  COLLAGE_ASSIGN_OR_RETURN(const std::string type, sole_file_system(fd, device));
  if (!type.empty()) return Content{Holds::kFileSystem, type};
  COLLAGE_ASSIGN_OR_RETURN(const std::set<std::string> found, signatures(fd, device));
  if (found.empty() && all_zero(head.data(), edge) && all_zero(tail.data(), edge)) {
    COLLAGE_ASSIGN_OR_RETURN(const bool blank, blank_between(fd, device, size));
    if (blank) return Content{Holds::kNothing, ""};
  }
  std::string all;
  for (const std::string& signature : found) all += (all.empty() ? "" : ", ") + signature;
  return Content{Holds::kOther, all.empty() ? "unknown data" : all};
}

absl::Status write_mark(int fd, const std::string& device, uint64_t size, const std::string& uuid) {
  return write_tail(fd, device, size, mark_text(uuid));
}

absl::Status clear_mark(int fd, const std::string& device, uint64_t size) {
  return write_tail(fd, device, size, "");
}

}  // namespace collage::mount::helper
