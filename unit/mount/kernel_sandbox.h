#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "operator/mount/mount_table.h"
#include "operator/mount/mounter.h"
#include "unit/testing/temp_dir.h"

namespace collage::testing {

// The real kernel, in a mount namespace of this test program's own, so that nothing leaks: what is mounted
// goes with the process, what is attached is detached at the end of each test. A machine that does not let
// root do this fails the tests; it never skips them.
class KernelSandbox : public ::testing::Test {
 public:
  static void SetUpTestSuite() {
    static const bool entered = enter();
    ASSERT_TRUE(entered) << "these tests need root and CAP_SYS_ADMIN: " << std::strerror(errno);
    ASSERT_EQ(access("/dev/loop-control", R_OK | W_OK), 0) << "these tests need loop devices";
  }

  void TearDown() override {
    const absl::StatusOr<mount::MountTable> table = mount::read_mount_table();
    ASSERT_TRUE(table.ok());
    for (auto entry = table->entries().rbegin(); entry != table->entries().rend(); ++entry) {
      if (entry->mount_point.starts_with(directory_.path() + "/"))
        umount2(entry->mount_point.c_str(), MNT_DETACH);
    }
    for (const std::string& loop : loops()) std::system(("losetup -d " + loop).c_str());
  }

  // "/dev/loop3" of images below the test's directory.
  std::vector<std::string> loops() const {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator("/sys/block")) {
      std::ifstream file(entry.path() / "loop/backing_file");
      std::string backing;
      std::getline(file, backing);
      if (backing.starts_with(directory_.path() + "/"))
        found.push_back("/dev/" + entry.path().filename().string());
    }
    return found;
  }

  std::string path(const std::string& name) const { return directory_ / name; }
  std::string make_directory(const std::string& name) const {
    std::filesystem::create_directories(path(name));
    return path(name);
  }
  // A sparse file of zeros at <name>/image.0, as the drivers make them.
  std::string make_image(const std::string& name, uint64_t bytes) const {
    make_directory(name);
    const std::string image = path(name + "/image.0");
    std::ofstream(image).close();
    std::filesystem::resize_file(image, bytes);
    return image;
  }
  static void write_at(const std::string& file, uint64_t offset, const std::string& bytes) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(static_cast<std::streamoff>(offset));
    stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    ASSERT_TRUE(stream.flush().good()) << file;
  }
  static std::string read_at(const std::string& file, uint64_t offset, size_t bytes) {
    std::ifstream stream(file, std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(offset));
    std::string data(bytes, '\0');
    stream.read(data.data(), static_cast<std::streamsize>(bytes));
    return data;
  }
  // How many mounts there are at exactly this path.
  static int mounts_at(const std::string& path) {
    const absl::StatusOr<mount::MountTable> table = mount::read_mount_table();
    EXPECT_TRUE(table.ok());
    int count = 0;
    for (const mount::MountEntry& entry : table->entries()) count += entry.mount_point == path ? 1 : 0;
    return count;
  }
  static int run(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()); }

 private:
  static bool enter() {
    return unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  }

  TempDir directory_;
};

inline constexpr char kMountHelper[] = COLLAGE_BIN_DIR "/collage-mount";

}  // namespace collage::testing
