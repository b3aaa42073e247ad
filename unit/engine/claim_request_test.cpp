#include "operator/engine/claim_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/testing/fake_driver.h"

namespace collage::engine {
namespace {

using drivers::AccessMode;
using drivers::DriverInfo;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr int64_t kGi = int64_t{1} << 30;

struct Request {
  ClaimFacts claim = {"1234", "team-a", "data", {"ReadWriteOnce"}, false, 10 * kGi, 0};
  ClassParameters parameters = {.backend = "fast"};
  std::vector<std::string> mount_options;
  DriverInfo info = testing::fake_info();
  TopologyRequirement topology;
  absl::StatusOr<drivers::CreateRequest> make() const {
    const std::string cluster = "c1";
    return make_create_request({claim, parameters, mount_options, info, topology, cluster});
  }
};

DriverInfo without_multi_writer() {
  DriverInfo info = testing::fake_info();
  std::erase(info.access_modes, AccessMode::kSingleNodeMultiWriter);
  return info;
}

TEST(ClaimRequest, CarriesWhatTheClaimAndTheClassSay) {
  Request request;
  request.parameters.fs_type = "xfs";
  request.parameters.driver = {{"speed", "7"}};
  request.mount_options = {"noatime"};
  request.claim.limit_bytes = 20 * kGi;
  request.topology = {{{{"zone", "a"}}, {{"zone", "b"}}}, {{{"zone", "b"}}, {{"zone", "a"}}}};
  const auto made = request.make();
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->name, "pvc-1234");
  EXPECT_EQ(made->required_bytes, 10 * kGi);
  EXPECT_EQ(made->limit_bytes, 20 * kGi);
  ASSERT_EQ(made->capabilities.size(), 1u);
  EXPECT_EQ(made->capabilities[0].fs_type, "xfs");
  EXPECT_THAT(made->capabilities[0].mount_flags, ElementsAre("noatime"));
  EXPECT_THAT(made->parameters, UnorderedElementsAre(Pair("speed", "7")));
  EXPECT_THAT(made->tags,
              UnorderedElementsAre(Pair("collage/cluster", "c1"), Pair("collage/claim", "team-a/data"),
                                   Pair("collage/pv", "pvc-1234")));
  EXPECT_EQ(made->requisite, request.topology.requisite);
  EXPECT_EQ(made->preferred, request.topology.preferred);
}

TEST(ClaimRequest, FileSystemIsTheDriversFirstWhenTheClassNamesNone) {
  Request request;
  EXPECT_EQ(request.make()->capabilities[0].fs_type, "ext4");
  request.info.fs_types = {};
  EXPECT_EQ(request.make()->capabilities[0].fs_type, "");
}

TEST(ClaimRequest, RawBlockHasNoFileSystemAndNoMountOptions) {
  Request request;
  request.claim.block = true;
  request.parameters.fs_type = "xfs";
  request.mount_options = {"noatime"};
  const auto made = request.make();
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->capabilities[0],
            (drivers::VolumeCapability{.mode = drivers::VolumeMode::kBlock,
                                       .access_mode = AccessMode::kSingleNodeMultiWriter}));
}

TEST(ClaimRequest, OneCapabilityForEachModeOfTheDriver) {
  Request request;
  request.info.access_modes.push_back(AccessMode::kMultiNodeReaderOnly);
  request.claim.access_modes = {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteOnce"};
  const auto made = request.make();
  ASSERT_TRUE(made.ok()) << made.status();
  ASSERT_EQ(made->capabilities.size(), 2u);
  EXPECT_EQ(made->capabilities[0].access_mode, AccessMode::kSingleNodeMultiWriter);
  EXPECT_EQ(made->capabilities[1].access_mode, AccessMode::kMultiNodeReaderOnly);
}

TEST(ClaimRequest, RefusesWithTheFieldAndWhatCanBeHad) {
  struct Case {
    std::string_view name;
    std::function<void(Request&)> change;
    absl::StatusCode code;
    std::string message;
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const Case cases[] = {
      {"size zero", [](Request& r) { r.claim.requested_bytes = 0; }, invalid,
       "spec.resources.requests.storage: must be a quantity greater than zero"},
      {"size negative", [](Request& r) { r.claim.requested_bytes = -1; }, invalid,
       "spec.resources.requests.storage: must be a quantity greater than zero"},
      {"size over the claim's limit", [](Request& r) { r.claim.limit_bytes = kGi; },
       absl::StatusCode::kOutOfRange,
       "spec.resources.requests.storage: 10Gi is more than spec.resources.limits.storage, 1Gi"},
      {"size below the driver's smallest", [](Request& r) { r.info.minimum_bytes = 11 * kGi; },
       absl::StatusCode::kOutOfRange, "spec.resources.requests.storage: "},
      {"no whole unit between request and limit",
       [](Request& r) { r.claim.limit_bytes = r.claim.requested_bytes += 1; }, absl::StatusCode::kOutOfRange,
       "spec.resources.requests.storage: "},
      {"shared by many writers", [](Request& r) { r.claim.access_modes = {"ReadWriteMany"}; }, invalid,
       "spec.accessModes: ReadWriteMany cannot be served by fake, which serves ReadWriteOnce, "
       "ReadWriteOncePod"},
      {"a mode that there is not", [](Request& r) { r.claim.access_modes = {"WriteSometimes"}; }, invalid,
       "spec.accessModes: WriteSometimes cannot be served"},
      {"no mode", [](Request& r) { r.claim.access_modes = {}; }, invalid,
       "spec.accessModes: none is asked for"},
      {"one pod and more",
       [](Request& r) {
         r.claim.access_modes = {"ReadWriteOnce", "ReadWriteOncePod"};
       },
       invalid, "ReadWriteOncePod cannot be combined"},
      {"raw block of a share",
       [](Request& r) {
         r.claim.block = true;
         r.info.volume_modes = {drivers::VolumeMode::kFilesystem};
       },
       invalid, "spec.volumeMode: Block cannot be served by fake; use Filesystem"},
      {"a file system that it cannot make", [](Request& r) { r.parameters.fs_type = "ntfs"; }, invalid,
       "StorageClass parameter \"csi.storage.k8s.io/fstype\": fake cannot make ntfs; use one of ext4, xfs"},
      {"a parameter that it does not know",
       [](Request& r) {
         r.parameters.driver = {{"colour", "red"}};
       },
       invalid, "StorageClass parameter \"colour\": fake does not know it; it knows speed"},
  };
  for (const Case& one : cases) {
    Request request;
    one.change(request);
    const absl::Status status = request.make().status();
    EXPECT_EQ(status.code(), one.code) << one.name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(one.message)) << one.name;
  }
}

TEST(ClaimRequest, TellsEveryProblemAtOnce) {
  Request request;
  request.claim.access_modes = {"ReadWriteMany"};
  request.claim.limit_bytes = kGi;
  request.parameters.driver = {{"colour", "red"}};
  const absl::Status status = request.make().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << "another size alone would not do";
  for (const char* part : {"spec.accessModes", "\"colour\"", "spec.resources.requests.storage"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

TEST(AccessModes, AreMappedAsTheDriverTellsThemApart) {
  const DriverInfo tells = testing::fake_info(), does_not = without_multi_writer();
  EXPECT_EQ(map_access_modes({"ReadWriteOnce"}, tells)->front(), AccessMode::kSingleNodeMultiWriter);
  EXPECT_EQ(map_access_modes({"ReadWriteOncePod"}, tells)->front(), AccessMode::kSingleNodeSingleWriter);
  EXPECT_EQ(map_access_modes({"ReadWriteOnce"}, does_not)->front(), AccessMode::kSingleNodeWriter);
  EXPECT_EQ(map_access_modes({"ReadWriteOncePod"}, does_not)->front(), AccessMode::kSingleNodeWriter);
  DriverInfo shared = tells;
  shared.access_modes = {AccessMode::kMultiNodeMultiWriter, AccessMode::kMultiNodeReaderOnly};
  EXPECT_THAT(*map_access_modes({"ReadOnlyMany", "ReadWriteMany"}, shared),
              ElementsAre(AccessMode::kMultiNodeReaderOnly, AccessMode::kMultiNodeMultiWriter));
  EXPECT_FALSE(map_access_modes({"ReadWriteOnce"}, shared).ok());
}

TEST(AccessModes, AttachTakesTheStrongest) {
  DriverInfo info = testing::fake_info();
  info.access_modes.push_back(AccessMode::kMultiNodeMultiWriter);
  info.access_modes.push_back(AccessMode::kMultiNodeReaderOnly);
  EXPECT_EQ(*attach_access_mode({"ReadWriteOnce"}, info), AccessMode::kSingleNodeMultiWriter);
  EXPECT_EQ(*attach_access_mode({"ReadWriteOncePod"}, info), AccessMode::kSingleNodeSingleWriter);
  EXPECT_EQ(*attach_access_mode({"ReadOnlyMany"}, info), AccessMode::kMultiNodeReaderOnly);
  EXPECT_EQ(*attach_access_mode({"ReadOnlyMany", "ReadWriteMany"}, info), AccessMode::kMultiNodeMultiWriter);
  EXPECT_EQ(*attach_access_mode({"ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"}, info),
            AccessMode::kMultiNodeMultiWriter);
  EXPECT_THAT(std::string(attach_access_mode({"ReadWriteOnce", "ReadOnlyMany"}, info).status().message()),
              HasSubstr("spec.accessModes: ReadWriteOnce together with ReadOnlyMany cannot be attached"));
  EXPECT_EQ(attach_access_mode({"ReadWriteMany"}, testing::fake_info()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace collage::engine
