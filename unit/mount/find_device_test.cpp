// Block devices by what they say of themselves: over a tree that looks like /sys/block and /dev.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <nlohmann/json.hpp>

#include "operator/mount/helper_client.h"
#include "unit/mount/kernel_sandbox.h"

namespace collage::mount {
namespace {

using base::Json;
using ::testing::HasSubstr;

class FindDevice : public testing::KernelSandbox {
 protected:
  void SetUp() override {
    make_directory("locks");
    make_directory("dev/disk/by-id");
    disk("vda", 0, "serial", "vol-1\n");
    disk("nvme0n1", 1, "device/serial", "  vol-2   \n");
    disk("sdb", 2, "", "");
    std::filesystem::create_symlink("../../sdb", path("dev/disk/by-id/scsi-vol-3"));
    std::filesystem::create_symlink("../../vda", path("dev/disk/by-id/virtio-vol-1"));
  }

  void disk(const std::string& name, int number, const std::string& place, const std::string& serial) {
    const std::string directory = make_directory("sys/" + name);
    if (!place.empty()) {
      std::filesystem::create_directories(std::filesystem::path(directory + "/" + place).parent_path());
      std::ofstream(directory + "/" + place) << serial;
    }
    ASSERT_EQ(
        mknod(path("dev/" + name).c_str(), S_IFBLK | 0600, makedev(7, 200 + static_cast<unsigned>(number))),
        0);
  }
  absl::StatusOr<Json> find(const std::string& serial, const std::vector<std::string>& by_id = {}) {
    return HelperClient(testing::kMountHelper, path("locks"))
        .call({}, "find-device", "b/v", std::chrono::seconds(10),
              {{"serial", serial}, {"byId", by_id}, {"sys", path("sys")}, {"dev", path("dev")}});
  }
};

TEST_F(FindDevice, BySerialWhereverTheKernelShowsIt) {
  const auto virtio = find("vol-1"), nvme = find("vol-2");
  ASSERT_TRUE(virtio.ok()) << virtio.status();
  ASSERT_TRUE(nvme.ok()) << nvme.status();
  EXPECT_EQ((*virtio)["device"], path("dev/vda"));
  EXPECT_EQ((*virtio)["number"], "7:200");
  EXPECT_EQ((*nvme)["device"], path("dev/nvme0n1"));
}

TEST_F(FindDevice, ByNameOfWhichOneIsEnough) {
  const auto device = find("", {"no-such-name", "scsi-vol-3"});
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ((*device)["device"], path("dev/sdb"));
}

TEST_F(FindDevice, TwoThatFitAreNeitherOfThem) {
  EXPECT_EQ(find("", {"scsi-vol-3", "virtio-vol-1"}).status().code(), absl::StatusCode::kFailedPrecondition);
  disk("vdb", 3, "serial", "vol-1");
  const auto twice = find("vol-1");
  EXPECT_EQ(twice.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(twice.status().message()), HasSubstr("two devices have the serial vol-1"));
}

TEST_F(FindDevice, NoneIsNotFoundAndAnEmptySerialFitsNothing) {
  EXPECT_EQ(find("vol-9").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(find("").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(find("vol").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace collage::mount
