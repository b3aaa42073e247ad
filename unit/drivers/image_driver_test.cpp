#include "drivers/image/image_driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/files.h"
#include "drivers/store/marker.h"
#include "unit/drivers/scratch.h"
#include "unit/drivers/storage.h"

namespace collage::drivers {

namespace {

using absl::StatusCode;
using base::Context;
using base::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Scratch;

class ImageDriverTest : public ::testing::Test {
 protected:
  ImageDriverTest() { mkdir(share_.c_str(), 0700); }

  std::unique_ptr<Driver> on(const std::string& node) const {
    const Json block = {{"directory", share_}};
    return image_kind().make({.backend = "fast", .block = &block, .node = node}).value();
  }
  // With its marker.
  std::unique_ptr<Driver> ready(const std::string& node) const {
    auto driver = on(node);
    EXPECT_TRUE(driver->probe(context_, {.initialize = true}).ok());
    return driver;
  }
  static CreateRequest request(const std::string& name) {
    return testing::a_request(image_kind().info, name);
  }
  absl::StatusOr<StringMap> attach(Driver& driver, const std::string& node, bool read_only = false) const {
    return driver.attacher()->attach(context_, "pvc-1", node, {}, read_only);
  }
  // Each call that touches the directory.
  std::vector<absl::Status> every_call(Driver& driver) const {
    return {driver.probe(context_, {}).status(),
            driver.create(context_, request("pvc-1")).status(),
            driver.remove(context_, "pvc-1"),
            driver.find(context_, "pvc-1").status(),
            driver.inspect(context_, "pvc-1").status(),
            driver.list(context_, "", 0).status(),
            attach(driver, "node-a").status(),
            driver.attacher()->detach(context_, "pvc-1", "node-a"),
            driver.capacity_reporter()->capacity(context_, {}, {}).status()};
  }
  void expect_no_share(Driver& driver, const std::string& detail) const {
    for (const absl::Status& status : every_call(driver)) {
      EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr("directory " + share_ + " on node-b is not the share of backend fast"));
      EXPECT_THAT(std::string(status.message()), HasSubstr(detail));
      EXPECT_THAT(std::string(status.message()), HasSubstr("mount the share there"));
    }
  }

  Scratch scratch_{64 << 20};
  const std::string share_ = scratch_ / "share";
  Context context_;
};

TEST_F(ImageDriverTest, ADirectoryWithoutAMarkerIsNotTheShare) {
  const auto driver = on("node-b");
  expect_no_share(*driver, "it has no marker file");
  EXPECT_THAT(base::list_directory(share_).value(), ElementsAre())
      << "something was written to a directory that is not the share";
}

TEST_F(ImageDriverTest, TheMarkerIsWrittenOnceAndOnlyWhenAskedFor) {
  const auto a = on("node-a");
  const auto b = on("node-b");
  EXPECT_EQ(a->probe(context_, {}).status().code(), StatusCode::kFailedPrecondition);
  const auto first = a->probe(context_, {.initialize = true});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_FALSE(first->system_id.empty());
  EXPECT_EQ(a->probe(context_, {.initialize = true})->system_id, first->system_id);
  EXPECT_EQ(b->probe(context_, {.initialize = true})->system_id, first->system_id);
  EXPECT_EQ(base::read_file(share_ + "/" + kMarkerFile).value(), first->system_id + "\n");
  EXPECT_THAT(base::list_directory(share_).value(), ElementsAre(kMarkerFile));
}

TEST_F(ImageDriverTest, NodesThatInitializeAtOnceAgree) {
  constexpr int kNodes = 8;
  std::vector<std::string> ids(kNodes);
  {
    std::vector<std::jthread> threads;
    for (std::string& id : ids) {
      threads.emplace_back([&] {
        id = on("node-a")->probe(context_, {.initialize = true}).value_or(ProbeResult{}).system_id;
      });
    }
  }
  EXPECT_FALSE(ids[0].empty());
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 1u);
  EXPECT_THAT(base::list_directory(share_).value(), ElementsAre(kMarkerFile));
}

TEST_F(ImageDriverTest, AnExpectedIdIsNeverMadeUp) {
  const auto driver = on("node-b");
  const auto answer = driver->probe(context_, {.initialize = true, .expected_system_id = "0d2c"});
  EXPECT_EQ(answer.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("0d2c is expected"));
  EXPECT_THAT(base::list_directory(share_).value(), ElementsAre());
}

TEST_F(ImageDriverTest, ClustersThatUseTheShareUnderOneIdSeeEachOther) {
  const auto a = ready("node-a");
  const auto registered = [&](const ClusterIdentity& cluster) {
    const auto result = a->probe(context_, {.cluster = cluster});
    EXPECT_TRUE(result.ok()) << result.status();
    return result.value_or(ProbeResult{}).cluster_uids;
  };
  EXPECT_THAT(registered({"prod", "uid-1"}), ElementsAre("uid-1"));
  EXPECT_THAT(registered({"prod", "uid-1"}), ElementsAre("uid-1"));
  EXPECT_THAT(registered({"prod", "uid-2"}), ElementsAre("uid-1", "uid-2"));
  EXPECT_THAT(registered({"prod", "uid-1"}), ElementsAre("uid-1", "uid-2"));
  EXPECT_THAT(registered({"test / of \"us\"", "uid-3"}), ElementsAre("uid-3"))
      << "another id is another matter";
  EXPECT_TRUE(a->list(context_, "", 0)->volumes.empty());
  EXPECT_EQ(a->probe(context_, {.cluster = {"prod", "../x"}}).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ImageDriverTest, AnIdThatIsRecordedHoldsFromTheFirstCall) {
  ASSERT_TRUE(ready("node-a")->create(context_, request("pvc-1")).ok());
  const base::Json block = {{"directory", share_}};
  const auto driver =
      image_kind()
          .make({.backend = "fast", .block = &block, .node = "node-b", .system_id = "another"})
          .value();
  EXPECT_EQ(driver->remove(context_, "pvc-1").code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(driver->find(context_, "pvc-1").status().code(), StatusCode::kFailedPrecondition)
      << "what is not there on another share says nothing";
  EXPECT_TRUE(ready("node-a")->inspect(context_, "pvc-1").ok());
}

TEST_F(ImageDriverTest, AShareThatVanishesUnderTheDriverIsNoticedByEveryCall) {
  const auto driver = ready("node-b");
  ASSERT_TRUE(driver->create(context_, request("pvc-1")).ok());
  // As when it is unmounted: the empty directory below shows.
  std::filesystem::rename(share_, scratch_ / "elsewhere");
  mkdir(share_.c_str(), 0700);
  expect_no_share(*driver, "it has no marker file");
  EXPECT_EQ(driver->probe(context_, {.initialize = true}).status().code(), StatusCode::kFailedPrecondition)
      << "it knew a share before";
  EXPECT_THAT(base::list_directory(share_).value(), ElementsAre());
}

TEST_F(ImageDriverTest, AnotherShareInItsPlaceIsNoticedByEveryCall) {
  const auto driver = ready("node-b");
  std::ofstream(share_ + "/" + kMarkerFile) << "another-id\n";
  expect_no_share(*driver, "its marker says another-id");
}

TEST_F(ImageDriverTest, TheExpectedIdOfAProbeIsRemembered) {
  const auto id = ready("node-a")->probe(context_, {})->system_id;
  const auto driver = on("node-b");
  EXPECT_EQ(driver->probe(context_, {.expected_system_id = "another"}).status().code(),
            StatusCode::kFailedPrecondition);
  ASSERT_TRUE(driver->probe(context_, {.expected_system_id = id}).ok());
  EXPECT_TRUE(driver->list(context_, "", 0).ok());
}

TEST_F(ImageDriverTest, ADamagedMarkerIsNeitherUsedNorReplaced) {
  for (const char* text : {"", "\n", "two words\n", "<html>"}) {
    std::ofstream(share_ + "/" + kMarkerFile) << text;
    const auto answer = on("node-a")->probe(context_, {.initialize = true});
    EXPECT_EQ(answer.status().code(), StatusCode::kDataLoss) << text;
    EXPECT_THAT(std::string(answer.status().message()), HasSubstr(kMarkerFile));
    EXPECT_EQ(base::read_file(share_ + "/" + kMarkerFile).value(), text);
  }
}

TEST_F(ImageDriverTest, VolumesWithoutAMarkerGetNoNewOne) {
  ASSERT_TRUE(ready("node-a")->create(context_, request("pvc-1")).ok());
  ASSERT_EQ(unlink((share_ + "/" + kMarkerFile).c_str()), 0);
  const auto answer = on("node-a")->probe(context_, {.initialize = true});
  EXPECT_EQ(answer.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("holds volumes, such as pvc-1"));
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("put it back"));
}

TEST_F(ImageDriverTest, NodesSeeEachOthersVolumes) {
  const auto a = ready("node-a");
  const auto b = ready("node-b");
  const auto volume = a->create(context_, request("pvc-1"));
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_EQ(volume->id, "pvc-1");
  EXPECT_EQ(b->create(context_, request("pvc-1")).value(), *volume);
  EXPECT_TRUE(b->remove(context_, "pvc-1").ok());
  EXPECT_EQ(a->inspect(context_, "pvc-1").status().code(), StatusCode::kNotFound);
}

TEST_F(ImageDriverTest, ThePublishContextNamesImageGenerationAndMode) {
  const auto driver = ready("node-a");
  ASSERT_TRUE(driver->create(context_, request("pvc-1")).ok());
  EXPECT_EQ(attach(*driver, "node-a").value(),
            (StringMap{{"image", "pvc-1/image.0"}, {"generation", "1"}, {"readOnly", "false"}}));
  EXPECT_EQ(attach(*driver, "node-a", true).status().code(), StatusCode::kAlreadyExists);
  ASSERT_TRUE(driver->attacher()->detach(context_, "pvc-1", "node-a").ok());
  const auto moved = attach(*driver, "node-b", true);
  EXPECT_EQ(moved.value(),
            (StringMap{{"image", "pvc-1/image.0"}, {"generation", "2"}, {"readOnly", "true"}}));
  EXPECT_EQ(std::get<LoopFile>(driver->access("pvc-1", {}, *moved).value()).path, share_ + "/pvc-1/image.0");
}

TEST_F(ImageDriverTest, AccessLeavesTheVolumesDirectoryNever) {
  const auto driver = on("node-a");
  for (const char* image : {"", "/etc/passwd", "pvc-2/image.0", "pvc-1/../pvc-2/image.0", "pvc-1/volume.json",
                            "pvc-1/image.0/..", "pvc-1"}) {
    EXPECT_EQ(driver->access("pvc-1", {}, {{"image", image}}).status().code(), StatusCode::kInvalidArgument)
        << image;
  }
  EXPECT_FALSE(driver->access("..", {}, {{"image", "../image.0"}}).ok());
  EXPECT_EQ(driver->access("pvc-1", {}, {}).status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(ImageDriverTest, ADamagedHolderIsReportedAndTheVolumeLeftAlone) {
  const auto driver = ready("node-a");
  ASSERT_TRUE(driver->create(context_, request("pvc-1")).ok());
  ASSERT_TRUE(driver->create(context_, request("pvc-2")).ok());
  ASSERT_EQ(symlink("garbage", (share_ + "/pvc-1/owner.1").c_str()), 0);
  EXPECT_EQ(attach(*driver, "node-a").status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(driver->attacher()->detach(context_, "pvc-1", "node-a").code(), StatusCode::kDataLoss);
  EXPECT_EQ(driver->remove(context_, "pvc-1").code(), StatusCode::kDataLoss);
  EXPECT_EQ(driver->inspect(context_, "pvc-1").status().code(), StatusCode::kDataLoss);
  const auto page = driver->list(context_, "", 0);
  ASSERT_TRUE(page.ok()) << page.status();
  ASSERT_EQ(page->volumes.size(), 2u);
  EXPECT_THAT(page->volumes[0].problem, HasSubstr("owner.1"));
  EXPECT_EQ(page->volumes[1].problem, "");
}

TEST_F(ImageDriverTest, ARemovalCutShortIsFinishedBeforeTheNameIsUsedAgain) {
  const auto driver = ready("node-a");
  ASSERT_TRUE(driver->create(context_, request("pvc-1")).ok());
  std::ofstream(share_ + "/pvc-1/image.0", std::ios::in | std::ios::out) << "old data";
  std::ofstream(share_ + "/pvc-1/owner.1");  // the claim of a removal that went no further
  EXPECT_EQ(attach(*driver, "node-a").status().code(), StatusCode::kFailedPrecondition);
  ASSERT_TRUE(driver->create(context_, request("pvc-1")).ok());
  EXPECT_TRUE(attach(*driver, "node-a").ok());
  EXPECT_EQ(base::read_file(share_ + "/pvc-1/image.0").value().substr(0, 8), std::string(8, '\0'));
}

TEST_F(ImageDriverTest, NodeIdsThatNoRecordCanHoldAreRefused) {
  const auto driver = ready("node-a");
  ASSERT_TRUE(driver->create(context_, request("pvc-1")).ok());
  for (const std::string& node :
       {std::string(), std::string("a\nb"), std::string("a\0b", 3), std::string(257, 'n')}) {
    EXPECT_EQ(attach(*driver, node).status().code(), StatusCode::kInvalidArgument) << node;
  }
  EXPECT_TRUE(attach(*driver, std::string(256, 'n')).ok());
}

TEST_F(ImageDriverTest, SharedAccessIsRefused) {
  const auto driver = ready("node-a");
  CreateRequest shared = request("pvc-1");
  shared.capabilities[0].access_mode = AccessMode::kMultiNodeMultiWriter;
  const auto answer = driver->create(context_, shared);
  EXPECT_EQ(answer.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("MULTI_NODE_MULTI_WRITER"));
}

}  // namespace

}  // namespace collage::drivers
