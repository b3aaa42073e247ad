#include "drivers/driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "drivers/registry.h"

namespace collage::drivers {

namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;

// As of a cloud's disks.
DriverInfo a_cloud() {
  return {.kind = "cloud",
          .description = "Disks",
          .access_modes = {AccessMode::kSingleNodeWriter},
          .volume_modes = {VolumeMode::kFilesystem},
          .fs_types = {"ext4"},
          .parameters = {"type"},
          .minimum_bytes = kGiB,
          .granularity_bytes = kGiB};
}

CreateRequest a_request() {
  return {.name = "pvc-1", .required_bytes = kGiB, .capabilities = {VolumeCapability{}}};
}

TEST(Driver, NamesAreMadeFromTheKind) {
  EXPECT_EQ(csi_driver_name("image"), "image.collage.storage");
  EXPECT_EQ(node_topology_key("local"), "local.collage.storage/node");
}

TEST(Driver, ModesHaveTheNamesOfCsi) {
  EXPECT_EQ(to_string(AccessMode::kSingleNodeWriter), "SINGLE_NODE_WRITER");
  EXPECT_EQ(to_string(AccessMode::kSingleNodeReaderOnly), "SINGLE_NODE_READER_ONLY");
  EXPECT_EQ(to_string(AccessMode::kMultiNodeReaderOnly), "MULTI_NODE_READER_ONLY");
  EXPECT_EQ(to_string(AccessMode::kMultiNodeSingleWriter), "MULTI_NODE_SINGLE_WRITER");
  EXPECT_EQ(to_string(AccessMode::kMultiNodeMultiWriter), "MULTI_NODE_MULTI_WRITER");
  EXPECT_EQ(to_string(AccessMode::kSingleNodeSingleWriter), "SINGLE_NODE_SINGLE_WRITER");
  EXPECT_EQ(to_string(AccessMode::kSingleNodeMultiWriter), "SINGLE_NODE_MULTI_WRITER");
}

TEST(Driver, SizesAreRoundedUpWithinTheLimit) {
  struct Case {
    const char* name;
    int64_t required;
    int64_t limit;
    int64_t size;
  };
  const Case cases[] = {
      {"exact", kGiB, 0, kGiB},
      {"rounded", kGiB + 1, 0, 2 * kGiB},
      {"rounded to the limit", kGiB + 1, 2 * kGiB, 2 * kGiB},
      {"limit above", kGiB, 5 * kGiB, kGiB},
  };
  for (const Case& c : cases) {
    const auto size = volume_size(a_cloud(), {.required_bytes = c.required, .limit_bytes = c.limit});
    ASSERT_TRUE(size.ok()) << c.name << size.status();
    EXPECT_EQ(*size, c.size) << c.name;
  }
  const auto overflow = volume_size(a_cloud(), {.required_bytes = std::numeric_limits<int64_t>::max()});
  EXPECT_EQ(overflow.status().code(), StatusCode::kOutOfRange);
}

TEST(Driver, WrongRequestsAreRefusedByTheirField) {
  struct Case {
    const char* name;
    void (*change)(CreateRequest& request);
    StatusCode code;
    const char* message;
  };
  const Case cases[] = {
      {"no name", [](CreateRequest& r) { r.name = ""; }, StatusCode::kInvalidArgument, "name"},
      {"no capability", [](CreateRequest& r) { r.capabilities.clear(); }, StatusCode::kInvalidArgument,
       "capabilities"},
      {"block", [](CreateRequest& r) { r.capabilities[0].mode = VolumeMode::kBlock; },
       StatusCode::kInvalidArgument, "volume mode Block: not offered by kind cloud; it has Filesystem"},
      {"shared",
       [](CreateRequest& r) { r.capabilities.push_back({.access_mode = AccessMode::kMultiNodeMultiWriter}); },
       StatusCode::kInvalidArgument,
       "access mode MULTI_NODE_MULTI_WRITER: not offered by kind cloud; it has SINGLE_NODE_WRITER"},
      {"fs type", [](CreateRequest& r) { r.capabilities[0].fs_type = "xfs"; }, StatusCode::kInvalidArgument,
       "fsType xfs: not offered by kind cloud; it has ext4"},
      {"parameter",
       [](CreateRequest& r) {
         r.parameters = {{"Type", "ssd"}};
       },
       StatusCode::kInvalidArgument, "parameters.Type: not known to kind cloud; it knows type"},
      {"zero", [](CreateRequest& r) { r.required_bytes = 0; }, StatusCode::kInvalidArgument,
       "size: must be above zero"},
      {"negative", [](CreateRequest& r) { r.required_bytes = -5; }, StatusCode::kInvalidArgument, "-5 bytes"},
      {"small", [](CreateRequest& r) { r.required_bytes = kGiB - 1; }, StatusCode::kOutOfRange,
       "the smallest cloud volume is 1 GiB"},
      {"limit", [](CreateRequest& r) { r.required_bytes = kGiB + 1, r.limit_bytes = kGiB + 2; },
       StatusCode::kOutOfRange, "multiples of"},
  };
  for (const Case& c : cases) {
    CreateRequest request = a_request();
    c.change(request);
    const absl::Status status = validate_create(a_cloud(), request);
    EXPECT_EQ(status.code(), c.code) << c.name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message)) << c.name;
  }
  EXPECT_TRUE(validate_create(a_cloud(), a_request()).ok());
}

TEST(Driver, AShareTakesNoFsType) {
  DriverInfo share = a_cloud();
  share.fs_types.clear();
  EXPECT_TRUE(validate_capability(share, {}).ok());
  const absl::Status status = validate_capability(share, {.fs_type = "ext4"});
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("leave fsType out"));
}

TEST(Registry, KindsAreCompleteAndNamedOnce) {
  std::set<std::string> names;
  for (const Kind& kind : kinds()) {
    EXPECT_TRUE(names.insert(kind.info.kind).second) << kind.info.kind;
    EXPECT_NE(kind.validate, nullptr) << kind.info.kind;
    EXPECT_NE(kind.make, nullptr) << kind.info.kind;
  }
  EXPECT_EQ(names, (std::set<std::string>{"image", "local"}));
}

TEST(Volume, HandleIsBackendAndId) {
  EXPECT_EQ(volume_handle("fast", "vol-1"), "fast/vol-1");
  const auto nested = parse_handle("disk/node-a/pvc-1");
  ASSERT_TRUE(nested.ok());
  EXPECT_EQ(nested->backend, "disk");
  EXPECT_EQ(nested->id, "node-a/pvc-1");
  for (const char* wrong : {"", "fast", "fast/", "/vol-1", "/"}) {
    EXPECT_EQ(parse_handle(wrong).status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
}

}  // namespace

}  // namespace collage::drivers
