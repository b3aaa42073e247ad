// The mkfs guard, on the real kernel: what is formatted and, above all, what never is.
#include <gmock/gmock.h>

#include <functional>

#include "base/files.h"
#include "base/random.h"
#include "base/status.h"
#include "unit/mount/kernel_sandbox.h"

namespace collage::mount {
namespace {

using base::Context;
using drivers::LoopFile;
using std::string_literals::operator""s;
using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSize = 320 * kMiB;  // xfs wants 300
constexpr uint64_t kForeignSize = 16 * kMiB;

// CRC-32 as GPT has it.
uint32_t crc32(const std::string& data) {
  uint32_t crc = ~0u;
  for (const unsigned char byte : data) {
    crc ^= byte;
    for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1)));
  }
  return ~crc;
}

std::string little(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
  return text;
}

class Format : public testing::KernelSandbox {
 protected:
  void SetUp() override {
    mounter_ = *make_kernel_mounter(testing::kMountHelper, path("locks"));
    target_ = make_directory("target");
  }

  absl::Status stage(const std::string& image, const std::string& type, const std::string& volume = "b/v",
                     const Context& context = Context(), Writing writing = Writing::kAllowed) {
    const absl::StatusOr<Reached> reached =
        mounter_->attach(Context(), volume, LoopFile{image}, Writing::kAllowed);
    if (!reached.ok()) return reached.status();
    device_ = reached->path;
    return mounter_->mount(context, volume, *reached, {type, "", writing}, target_);
  }
  void unstage(const std::string& image) {
    ASSERT_TRUE(mounter_->unmount(Context(), "b/v", target_, Leftover::kKeep).ok());
    const absl::Status detached = mounter_->detach(Context(), "b/v", LoopFile{image}, {});
    ASSERT_TRUE(detached.ok()) << detached;
  }
  // Of all bytes that are not zero, and where they are.
  static std::string fingerprint(const std::string& image) {
    const base::UniqueFd fd(open(image.c_str(), O_RDONLY | O_CLOEXEC));
    std::string all;
    for (off_t data = 0; (data = lseek(fd.get(), data, SEEK_DATA)) >= 0;) {
      const off_t hole = lseek(fd.get(), data, SEEK_HOLE);
      const std::string bytes = read_at(image, static_cast<uint64_t>(data), static_cast<size_t>(hole - data));
      for (size_t at = 0; at < bytes.size(); at += 4096) {
        const std::string block = bytes.substr(at, 4096);
        if (block.find_first_not_of('\0') != std::string::npos)
          all += std::to_string(data + static_cast<off_t>(at)) + block;
      }
      data = hole;
    }
    return base::sha256_hex(all);
  }

  std::unique_ptr<Mounter> mounter_;
  std::string target_, device_;
};

TEST_F(Format, ABlankDeviceIsFormattedOnceAndUsedAsItIsAfterwards) {
  for (const std::string type : {"ext4", "xfs"}) {
    SCOPED_TRACE(type);
    const std::string image = make_image(type, kSize);
    const absl::Status staged = stage(image, type);
    ASSERT_TRUE(staged.ok()) << staged;
    std::ofstream(target_ + "/data") << "kept";
    unstage(image);
    ASSERT_TRUE(stage(image, type).ok());
    EXPECT_EQ(read_at(target_ + "/data", 0, 4), "kept");
    unstage(image);
  }
}

TEST_F(Format, TheSizeOfAVolumeIsItsLimit) {
  const std::string image = make_image("v", 32 * kMiB);
  ASSERT_TRUE(stage(image, "ext4").ok());
  std::ofstream file(target_ + "/big", std::ios::binary);
  const std::string chunk(kMiB, 'x');
  for (int i = 0; i < 40 && file; ++i) file << chunk << std::flush;
  EXPECT_FALSE(file.good()) << "40 MiB fitted into a volume of 32";
}

struct Foreign {
  std::string_view name;
  std::string found;  // what the message calls it
  std::function<void(const std::string& image)> make;
};

std::vector<Foreign> foreign_contents() {
  auto write = [](uint64_t offset, std::string bytes) {
    return [offset, bytes = std::move(bytes)](const std::string& image) {
      Format::write_at(image, offset, bytes);
    };
  };
  return {
      {"LUKS 1", "crypto_LUKS", write(0, "LUKS\xba\xbe\x00\x01"s + "aes"s)},
      {"LUKS 2", "crypto_LUKS", write(0, "LUKS\xba\xbe\x00\x02"s + little(0, 6) + "\x40\x00"s)},
      {"LUKS 2, second header only", "crypto_LUKS", write(16384, "SKUL\xba\xbe\x00\x02"s)},
      {"LVM, checksum wrong", "LVM2_member",
       write(512, "LABELONE"s + little(1, 8) + little(0xdead, 4) + little(32, 4) + "LVM2 001")},
      {"MBR", "dos partition table",
       [](const std::string& image) {
         Format::write_at(image, 446,
                          "\x00\x20\x21\x00\x83\xff\xff\xff"s + little(2048, 4) + little(100000, 4));
         Format::write_at(image, 510, "\x55\xaa");
       }},
      {"GPT", "gpt partition table",
       [](const std::string& image) {
         const std::string entries(128 * 128, '\0');
         auto header = [&](uint32_t crc) {
           return "EFI PART"s + little(0x10000, 4) + little(92, 4) + little(crc, 4) + little(0, 4) +
                  little(1, 8) + little(kForeignSize / 512 - 1, 8) + little(34, 8) +
                  little(kForeignSize / 512 - 34, 8) + std::string(16, 'g') + little(2, 8) + little(128, 4) +
                  little(128, 4) + little(crc32(entries), 4);
         };
         Format::write_at(
             image, 446,
             "\x00\x00\x02\x00\xee\xff\xff\xff"s + little(1, 4) + little(kForeignSize / 512 - 1, 4));
         Format::write_at(image, 510, "\x55\xaa");
         Format::write_at(image, 512, header(crc32(header(0))));
       }},
      {"swap", "swap", [](const std::string& image) { ASSERT_EQ(Format::run("mkswap " + image), 0); }},
      {"RAID, at the start", "linux_raid_member",
       write(4096, little(0xa92b4efc, 4) + little(1, 4) + std::string(136, '\0') + little(8, 8))},
      {"btrfs", "btrfs", write(65536 + 32, std::string(32, 'b') + "_BHRfS_M")},
      {"ZFS labels at the end", "", write(kForeignSize - 2 * 262144 + 131072, little(0x00bab10c, 8))},
      {"bytes at the start", "unknown data", write(0, "hello")},
      {"bytes in the first MiB", "unknown data", write(900000, "hello")},
      {"data between the ends", "unknown data", write(kForeignSize / 3, std::string(kForeignSize / 32, 'x'))},
      {"bytes at the very end", "unknown data", write(kForeignSize - 5, "hello")},
      {"ext4 and swap at once", "",
       [](const std::string& image) {
         ASSERT_EQ(Format::run("mkfs.ext4 -q -b 4096 -F " + image), 0);
         Format::write_at(image, 4086, "SWAPSPACE2");
         Format::write_at(image, 1024, little(1, 4) + little(100, 4));
       }},
      {"ext4, damaged superblock checksum and magic kept", "ext",
       [](const std::string& image) {
         ASSERT_EQ(Format::run("mkfs.ext4 -q -F -O metadata_csum " + image), 0);
         Format::write_at(image, 1024 + 0x3fc, little(0xbadbad, 4));
       }},
  };
}

TEST_F(Format, WhatIsNotBlankIsNeverTouched) {
  for (const Foreign& foreign : foreign_contents()) {
    for (const std::string type : {"ext4", "xfs"}) {
      SCOPED_TRACE(std::string(foreign.name) + " as " + type);
      const std::string image = make_image("v", kForeignSize);
      foreign.make(image);
      const std::string before = fingerprint(image);
      const absl::Status refused = stage(image, type);
      if (foreign.found == "ext" && type == "ext4") {
        // libblkid calls it ext4 or nothing; the kernel's mount refuses it. Either way nothing is formatted.
        EXPECT_FALSE(refused.ok());
      } else {
        EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << refused;
        const std::string message(refused.message());
        EXPECT_THAT(message, HasSubstr(device_ + " (volume b/v)"));
        EXPECT_THAT(message, HasSubstr(foreign.found));
        EXPECT_THAT(message, HasSubstr("blkdiscard -z"));
      }
      EXPECT_EQ(mounts_at(target_), 0);
      ASSERT_TRUE(mounter_->detach(Context(), "b/v", LoopFile{image}, {}).ok());
      EXPECT_EQ(fingerprint(image), before);
      std::filesystem::remove(image);
    }
  }
}

TEST_F(Format, AFileSystemOfAnotherTypeIsRefusedAndKept) {
  const std::string image = make_image("v", kSize);
  ASSERT_TRUE(stage(image, "xfs").ok());
  unstage(image);
  const std::string before = fingerprint(image);
  const absl::Status refused = stage(image, "ext4");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("holds a file system of type xfs, not ext4: set fsType to xfs"));
  ASSERT_TRUE(mounter_->detach(Context(), "b/v", LoopFile{image}, {}).ok());
  EXPECT_EQ(fingerprint(image), before);
}

TEST_F(Format, ReadOnlyNeverFormats) {
  const std::string image = make_image("v", kSize);
  const absl::Status refused = stage(image, "ext4", "b/v", Context(), Writing::kReadOnly);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("blank"));
}

TEST_F(Format, TooSmallForXfsIsSaidBeforeMkfsIsRun) {
  const std::string image = make_image("v", 64 * kMiB);
  const absl::Status refused = stage(image, "xfs");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("xfs needs at least 300 MiB and it has 64"));
}

TEST_F(Format, AnUnknownTypeIsRefused) {
  EXPECT_EQ(stage(make_image("v", kSize), "reiserfs").code(), absl::StatusCode::kInvalidArgument);
}

// Kill the helper and its mkfs at one instant after another: what they leave is always formatted again, never
// refused as somebody's data, never mounted half made.
TEST_F(Format, KilledAtAnyInstantItIsFormattedAgain) {
  for (const std::string type : {"ext4", "xfs"}) {
    bool finished = false;
    int interrupted = 0;
    for (int delay = 0; !finished; delay += 2000 + delay / 4) {
      SCOPED_TRACE(type + " after " + std::to_string(delay) + " us");
      const std::string image = make_image("v", kSize);
      const Context brief = Context().with_timeout(std::chrono::microseconds(delay));
      const absl::Status first = stage(image, type, "b/v", brief);
      finished = first.ok();
      if (!finished) {
        ASSERT_EQ(first.code(), absl::StatusCode::kDeadlineExceeded) << first;
        ++interrupted;
        const absl::Status second = stage(image, type);
        ASSERT_TRUE(second.ok()) << second;
      }
      std::ofstream(target_ + "/works") << "yes";
      unstage(image);
      std::filesystem::remove(image);
    }
    EXPECT_GT(interrupted, 2);
  }
}

TEST_F(Format, AnothersHalfMadeFileSystemIsNotOurs) {
  const std::string image = make_image("v", kSize);
  write_at(image, kSize - 4096, "collage: formatting, not yet used: 00000000-0000-8000-a000-000000000000\n");
  EXPECT_EQ(stage(image, "ext4").code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(mounter_->detach(Context(), "b/v", LoopFile{image}, {}).ok());

  const std::string xfs = make_image("w", kSize);
  ASSERT_EQ(run("mkfs.xfs -q " + xfs), 0);
  write_at(xfs, 126, "\x01");  // in progress, by somebody else
  const std::string before = fingerprint(xfs);
  EXPECT_FALSE(stage(xfs, "xfs").ok());
  EXPECT_FALSE(stage(xfs, "ext4").ok());
  ASSERT_TRUE(mounter_->detach(Context(), "b/v", LoopFile{xfs}, {}).ok());
  EXPECT_EQ(fingerprint(xfs), before);
}

TEST_F(Format, NoMarkStaysOnAFormattedDevice) {
  const std::string image = make_image("v", kSize);
  ASSERT_TRUE(stage(image, "ext4").ok());
  unstage(image);
  EXPECT_EQ(read_at(image, kSize - 4096, 4096), std::string(4096, '\0'));
}

TEST_F(Format, AnErrorThatTheKernelNotedIsMended) {
  const std::string image = make_image("v", kSize);
  ASSERT_TRUE(stage(image, "ext4").ok());
  unstage(image);
  ASSERT_EQ(run("debugfs -w -R 'ssv state 2' " + image), 0);
  const absl::Status mended = stage(image, "ext4");
  ASSERT_TRUE(mended.ok()) << mended;
  unstage(image);
  EXPECT_EQ(read_at(image, 1024 + 0x3a, 1), "\x01");
}

}  // namespace
}  // namespace collage::mount
