#include "operator/reconcile/survey.h"

#include <gtest/gtest.h>

#include <algorithm>

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

}  // namespace
}  // namespace collage::reconcile
