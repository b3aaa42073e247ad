#include "drivers/local/local_driver.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/cleanup/cleanup.h"
#include "base/files.h"
#include "drivers/local/loop_use.h"
#include "drivers/store/marker.h"
#include "unit/drivers/scratch.h"
#include "unit/drivers/storage.h"

namespace collage::drivers {

namespace {

using absl::StatusCode;
using base::Context;
using base::Json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Scratch;

class LocalDriverTest : public ::testing::Test {
 protected:
  LocalDriverTest() : driver_(make(scratch_.path(), "node-a")) {
    EXPECT_TRUE(driver_->probe(context_, {.initialize = true}).ok());
  }

  static std::unique_ptr<Driver> make(const std::string& directory, const std::string& node) {
    const Json block = {{"directory", directory}};
    return local_kind().make({.backend = "disks", .block = &block, .node = node}).value();
  }
  CreateRequest request(const std::string& name) const { return testing::a_request(driver_->info(), name); }

  // Every call that touches the directory.
  std::vector<absl::Status> all_calls(Driver& driver) const {
    return {driver.probe(context_, {}).status(),
            driver.create(context_, request("pvc-1")).status(),
            driver.remove(context_, "node-a/pvc-1"),
            driver.find(context_, "pvc-1").status(),
            driver.inspect(context_, "node-a/pvc-1").status(),
            driver.list(context_, "", 0).status(),
            driver.capacity_reporter()->capacity(context_, {}, {}).status()};
  }

  Context context_;
  Scratch scratch_{int64_t{1} << 30};
  std::unique_ptr<Driver> driver_;
};

TEST_F(LocalDriverTest, NeedsItsNode) {
  const Json block = {{"directory", scratch_.path()}};
  for (const char* node : {"", "a/b"}) {
    EXPECT_EQ(local_kind().make({.block = &block, .node = node}).status().code(),
              StatusCode::kInvalidArgument)
        << node;
  }
}

TEST_F(LocalDriverTest, ValidateNamesTheField) {
  const absl::Status status = local_kind().validate({{"directory", "volumes"}});
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("spec.local.directory: must be an absolute path, such as /var/lib/collage/volumes"));
}

TEST_F(LocalDriverTest, AMissingDirectoryIsRefusedByEveryCall) {
  const auto driver = make(scratch_ / "none", "node-a");
  for (const absl::Status& status : all_calls(*driver)) {
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr((scratch_ / "none") + " on node-a does not exist"));
  }
}

TEST_F(LocalDriverTest, TheDirectoryUnderADiskThatIsNotMountedIsRefusedByEveryCall) {
  ASSERT_TRUE(driver_->create(context_, request("pvc-1")).ok());
  const std::string id = driver_->probe(context_, {})->system_id;
  ASSERT_FALSE(id.empty());
  // Another directory at the same path.
  std::filesystem::create_directory(scratch_ / "disk");
  for (const char* name : {"pvc-1", kMarkerFile}) {
    std::filesystem::rename(scratch_ / name, scratch_ / (std::string("disk/") + name));
  }
  for (const absl::Status& status : all_calls(*driver_)) {
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(scratch_.path() + " on node-a is not the storage of backend disks"),
                      HasSubstr(id + " is expected"), HasSubstr("mount its disk there")));
  }
  // Nor by a later process that was told the id.
  const auto later = make(scratch_.path(), "node-a");
  EXPECT_EQ(later->probe(context_, {.initialize = true, .expected_system_id = id}).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_FALSE(std::filesystem::exists(scratch_ / kMarkerFile)) << "an id of its own was put there";
  for (const char* name : {"pvc-1", kMarkerFile}) {
    std::filesystem::rename(scratch_ / (std::string("disk/") + name), scratch_ / name);
  }
  EXPECT_TRUE(driver_->probe(context_, {.expected_system_id = id}).ok());
  EXPECT_TRUE(driver_->remove(context_, "node-a/pvc-1").ok());
}

TEST_F(LocalDriverTest, AnotherDiskAtThePathIsRefused) {
  const std::string id = driver_->probe(context_, {})->system_id;
  std::ofstream(scratch_ / kMarkerFile) << "another-disk\n";
  const absl::Status refused = driver_->remove(context_, "node-a/pvc-1");
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("its marker says another-disk"), HasSubstr(id)));
}

TEST_F(LocalDriverTest, VolumesOfBeforeTheMarkerStayAndGetOne) {
  ASSERT_TRUE(driver_->create(context_, request("pvc-1")).ok());
  std::filesystem::remove(scratch_ / kMarkerFile);
  const auto upgraded = make(scratch_.path(), "node-a");
  EXPECT_EQ(upgraded->remove(context_, "node-a/pvc-1").code(), StatusCode::kFailedPrecondition)
      << "not before it was looked at";
  EXPECT_TRUE(upgraded->probe(context_, {.initialize = true}).ok());
  EXPECT_TRUE(upgraded->inspect(context_, "node-a/pvc-1").ok());
}

TEST_F(LocalDriverTest, AVolumeOfAnotherNodeIsNotAnsweredFor) {
  for (const absl::Status& status :
       {driver_->remove(context_, "node-b/pvc-1"), driver_->inspect(context_, "node-b/pvc-1").status()}) {
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("node-a"));
  }
}

TEST_F(LocalDriverTest, AccessIsTheImageFile) {
  const auto access = driver_->access("node-a/pvc-1", {}, {});
  ASSERT_TRUE(access.ok()) << access.status();
  EXPECT_EQ(std::get<LoopFile>(*access).path, scratch_ / "pvc-1/image.0");
  EXPECT_FALSE(driver_->access("node-a/../../etc", {}, {}).ok());
  EXPECT_FALSE(driver_->access("pvc-1", {}, {}).ok());
}

TEST_F(LocalDriverTest, XfsNeedsItsSize) {
  CreateRequest xfs = request("pvc-1");
  xfs.capabilities = {{.fs_type = "xfs"}};
  xfs.parameters = {{"allocation", "sparse"}};
  xfs.required_bytes = (int64_t{300} << 20) - 1;
  const auto small = driver_->create(context_, xfs);
  EXPECT_TRUE(small.ok()) << "rounded up to 300 MiB: " << small.status();
  xfs.name = "pvc-2";
  xfs.required_bytes = int64_t{299} << 20;
  const auto refused = driver_->create(context_, xfs);
  EXPECT_EQ(refused.status().code(), StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("xfs"));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("300"));
  xfs.capabilities[0].mode = VolumeMode::kBlock;
  EXPECT_TRUE(driver_->create(context_, xfs).ok()) << "a raw block volume has no file system";
}

TEST_F(LocalDriverTest, AllocationIsFullOrSparse) {
  CreateRequest wrong = request("pvc-1");
  wrong.parameters = {{"allocation", "thin"}};
  const auto refused = driver_->create(context_, wrong);
  EXPECT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("parameters.allocation: \"thin\""));
  EXPECT_EQ(driver_->capacity_reporter()->capacity(context_, wrong.parameters, {}).status().code(),
            StatusCode::kInvalidArgument);
  for (const char* right : {"full", "sparse"}) {
    CreateRequest request_with = request(right);
    request_with.parameters = {{"allocation", right}};
    EXPECT_TRUE(driver_->create(context_, request_with).ok()) << right;
  }
}

TEST_F(LocalDriverTest, AnotherNodesCapacityIsNone) {
  CapacityReporter* const reporter = driver_->capacity_reporter();
  const std::string key = node_topology_key("local");
  EXPECT_GT(reporter->capacity(context_, {}, {{key, "node-a"}})->available_bytes, 0);
  EXPECT_EQ(reporter->capacity(context_, {}, {{key, "node-b"}}).value(), Capacity{});
}

TEST_F(LocalDriverTest, ADamagedVolumeDoesNotHideTheOthers) {
  ASSERT_TRUE(driver_->create(context_, request("bad")).ok());
  ASSERT_TRUE(driver_->create(context_, request("good")).ok());
  std::ofstream(scratch_ / "bad/volume.json") << "{";
  const auto page = driver_->list(context_, "", 0);
  ASSERT_TRUE(page.ok()) << page.status();
  ASSERT_EQ(page->volumes.size(), 2u);
  EXPECT_EQ(page->volumes[0].id, "node-a/bad");
  EXPECT_THAT(page->volumes[0].problem, HasSubstr("volume.json is unreadable"));
  EXPECT_EQ(page->volumes[1].problem, "");
  EXPECT_EQ(driver_->remove(context_, "node-a/bad").code(), StatusCode::kDataLoss);
}

TEST_F(LocalDriverTest, ProbeTidiesUp) {
  ASSERT_EQ(mkdir((scratch_ / ".removing-pvc-9").c_str(), 0700), 0);
  std::ofstream(scratch_ / ".removing-pvc-9/image.0") << "x";
  ASSERT_TRUE(driver_->probe(context_, {}).ok());
  EXPECT_FALSE(std::filesystem::exists(scratch_ / ".removing-pvc-9"));
}

class LoopUse : public ::testing::Test {
 protected:
  void device(const std::string& name, const std::string& file) {
    std::filesystem::create_directories(sysfs_ / (name + "/loop"));
    if (!file.empty()) std::ofstream(sysfs_ / (name + "/loop/backing_file")) << file << "\n";
  }

  testing::TempDir sysfs_;
  testing::TempDir dev_;
  const LoopPaths paths_{.block = sysfs_.path(), .dev = dev_.path()};
};

TEST_F(LoopUse, FindsTheDeviceOfAVolumeAndNoOther) {
  device("loop0", "");
  device("loop1", "/volumes/pvc-10/image.0");
  device("loop7", "/volumes/pvc-1/image.0");
  device("loop8", "/volumes/pvc-3/image.0.bak");
  device("sda", "/volumes/pvc-2/image.0");
  EXPECT_EQ(loop_device_of("/volumes/pvc-1", paths_), dev_ / "loop7");
  EXPECT_EQ(loop_device_of("/volumes/pvc-10", paths_), dev_ / "loop1");
  EXPECT_EQ(loop_device_of("/volumes/pvc-2", paths_), "");
  EXPECT_EQ(loop_device_of("/volumes/pvc-3", paths_), "");
  EXPECT_EQ(loop_device_of("/volumes/0", paths_), "");
  EXPECT_EQ(loop_device_of("/volumes/pvc-1", {.block = sysfs_ / "none"}), "");
}

TEST_F(LoopUse, APathThatLostItsFirstPartCountsAsInUse) {
  device("loop7", "/pvc-1/image.0");
  EXPECT_EQ(loop_device_of("/volumes/pvc-1", paths_), dev_ / "loop7");
}

// With a device of the kernel: as the same file under another path, and as another file of the same name.
TEST_F(LoopUse, TheFileItselfIsCompared) {
  std::filesystem::create_directories(dev_ / "a/pvc-1");
  std::filesystem::create_directories(dev_ / "b/pvc-1");
  for (const char* side : {"a", "b"}) {
    std::ofstream(dev_ / (std::string(side) + "/pvc-1/image.0")) << std::string(1 << 20, 'x');
  }
  base::UniqueFd control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  const int number = control ? ioctl(control.get(), LOOP_CTL_GET_FREE) : -1;
  if (number < 0) GTEST_SKIP() << "no loop devices here";
  const std::string name = "loop" + std::to_string(number);
  base::UniqueFd loop(open(("/dev/" + name).c_str(), O_RDONLY | O_CLOEXEC));
  base::UniqueFd image(open((dev_ / "a/pvc-1/image.0").c_str(), O_RDONLY | O_CLOEXEC));
  if (!loop || ioctl(loop.get(), LOOP_SET_FD, image.get()) != 0) GTEST_SKIP() << "no loop devices here";
  absl::Cleanup clear = [&] { ioctl(loop.get(), LOOP_CLR_FD, 0); };
  device(name, "/pvc-1/image.0");
  const LoopPaths paths{.block = sysfs_.path(), .dev = "/dev"};
  EXPECT_EQ(loop_device_of(dev_ / "a/pvc-1", paths), "/dev/" + name);
  EXPECT_EQ(loop_device_of(dev_ / "b/pvc-1", paths), "");
  EXPECT_EQ(loop_device_of(dev_ / "a/pvc-1"), "/dev/" + name) << "as the kernel shows it";
}

}  // namespace

}  // namespace collage::drivers
