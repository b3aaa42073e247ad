#include "operator/reconcile/survey.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_driver.h"

namespace collage::reconcile {
namespace {

drivers::Volume listed(const std::string& name, const std::string& cluster) {
  drivers::Volume volume{.id = "vol-" + name, .name = name};
  if (!cluster.empty()) volume.tags[drivers::kTagCluster] = cluster;
  return volume;
}

TEST(FindOrphans, CountsOnlyWhatIsOursAndWhatNobodyRefersTo) {
  const std::vector<drivers::Volume> volumes = {listed("pvc-1", "us"), listed("pvc-2", "us"),
                                                listed("pvc-3", "us"), listed("pvc-4", "them"),
                                                listed("pvc-5", "")};
  const Orphans orphans = find_orphans(volumes, "share", "us", {"share/vol-pvc-1", "other/vol-pvc-2"}, {"3"});
  EXPECT_EQ(orphans.count, 1u)
      << "1 has its PersistentVolume, 3 its intent, 4 is another cluster's, 5 nobody's";
  EXPECT_EQ(orphans.names, std::vector<std::string>{"share/vol-pvc-2"});
}

TEST(FindOrphans, NamesTheFirstFewAndCountsAll) {
  std::vector<drivers::Volume> volumes;
  for (int i = 0; i < 100; ++i) volumes.push_back(listed("pvc-" + std::to_string(i), "us"));
  const Orphans orphans = find_orphans(volumes, "share", "us", {}, {});
  EXPECT_EQ(orphans.count, 100u);
  EXPECT_LT(orphans.names.size(), 100u);
  EXPECT_TRUE(std::is_sorted(orphans.names.begin(), orphans.names.end()));
}

// A node's driver, whose lists cost writes.
TEST(VolumeSurvey, AListThatFailsThroughANodeIsRepeatedAsRarelyAsOneWithOrphans) {
  testing::FakeDriverOptions options;
  options.info.control = drivers::ControlPlace::kAnyNode;
  const auto driver = std::make_shared<testing::FakeDriver>(options);
  driver->fail_before(drivers::Verb::kList, absl::UnavailableError("the share is away"));
  testing::FakeApiServer api;
  const auto client = api.client();
  kube::EventRecorder events(*client, "test", "test");
  const std::vector<drivers::Kind> kinds{testing::fake_kind(options)};
  World world(*client, events, kinds, "collage");
  auto backend = std::make_shared<engine::Backend>();
  backend->spec.name = "fast";
  backend->driver = driver;
  world.backends.set(std::move(backend));
  VolumeSurvey survey(world,
                      {.after = std::chrono::milliseconds(1),
                       .every = std::chrono::hours(24),
                       .every_through_nodes = std::chrono::milliseconds(1)},
                      [](const std::string&) {});
  survey.start(base::Context());
  survey.soon("fast");
  EXPECT_TRUE(api.wait_until([&] { return survey.orphans("fast").has_value(); }, std::chrono::seconds(20)));
  EXPECT_EQ(driver->calls(drivers::Verb::kList), 2);
  survey.stop();
}

}  // namespace
}  // namespace collage::reconcile
