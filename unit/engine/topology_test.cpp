#include "operator/engine/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace collage::engine {
namespace {

using drivers::Topology;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Topology zone(const std::string& name) {
  return {{"zone", name}};
}
Topology node(const std::string& name) {
  return {{"local.collage.storage/node", name}};
}

TEST(Topology, SelectedNodeComesFirstAmongAll) {
  const auto result = topology_requirement(
      {.cluster = {zone("c"), zone("a"), zone("b"), zone("a")}, .selected = zone("b"), .selected_node = "n"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->requisite, ElementsAre(zone("a"), zone("b"), zone("c")));
  EXPECT_THAT(result->preferred, ElementsAre(zone("b"), zone("c"), zone("a")));
}

TEST(Topology, StrictIsTheSelectedNodeAlone) {
  const auto result = topology_requirement({.cluster = {node("a"), node("b")},
                                            .selected = node("b"),
                                            .selected_node = "b",
                                            .placement = Placement::kStrict});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->requisite, ElementsAre(node("b")));
  EXPECT_THAT(result->preferred, ElementsAre(node("b")));
}

TEST(Topology, StrictWithoutASelectedNodeIsAnyOfTheCluster) {
  const auto result = topology_requirement(
      {.cluster = {node("b"), node("a")}, .placement = Placement::kStrict, .claim_name = "data"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->requisite, ElementsAre(node("a"), node("b")));
  EXPECT_EQ(result->preferred.size(), 2u);
}

TEST(Topology, AllowedTopologiesAreEveryChoiceOfValues) {
  const auto result = topology_requirement({.cluster = {zone("z")},
                                            .selected = Topology{{"zone", "a"}, {"rack", "2"}},
                                            .selected_node = "n",
                                            .allowed = {{{"zone", {"b", "a"}}, {"rack", {"1", "2"}}}}});
  ASSERT_TRUE(result.ok()) << result.status();
  const Topology a1 = {{"zone", "a"}, {"rack", "1"}}, a2 = {{"zone", "a"}, {"rack", "2"}};
  const Topology b1 = {{"zone", "b"}, {"rack", "1"}}, b2 = {{"zone", "b"}, {"rack", "2"}};
  EXPECT_THAT(result->requisite, ElementsAre(a1, b1, a2, b2));
  EXPECT_THAT(result->preferred, ElementsAre(a2, b2, a1, b1));
}

TEST(Topology, AnAllowedTermMayNameFewerKeysThanTheNodeHas) {
  const Topology selected = {{"zone", "a"}, {"rack", "7"}};
  for (Placement placement : {Placement::kPreferred, Placement::kStrict}) {
    EXPECT_TRUE(topology_requirement(
                    {.selected = selected, .allowed = {{{"zone", {"b", "a"}}}}, .placement = placement})
                    .ok());
    const auto refused = topology_requirement({.selected = selected,
                                               .selected_node = "n7",
                                               .allowed = {{{"zone", {"b"}}}},
                                               .placement = placement});
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("node n7 is at {rack=7, zone=a}"));
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("allowedTopologies are {zone=b}"));
  }
}

TEST(Topology, NoNodeWithTheDriverIsARetry) {
  const auto result = topology_requirement({.claim_name = "data"});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("no available topology found"));
}

TEST(Topology, AKeyWithoutValuesCanNeverBe) {
  EXPECT_EQ(topology_requirement({.cluster = {zone("a")}, .allowed = {{{"zone", {}}}}}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Topology, AStatefulSetIsSpreadInTurn) {
  const std::vector<Topology> cluster = {zone("a"), zone("b"), zone("c")};
  const auto first = [&](const std::string& claim) {
    return topology_requirement({.cluster = cluster, .claim_name = claim})->preferred.front();
  };
  EXPECT_NE(first("data-web-0"), first("data-web-1"));
  EXPECT_NE(first("data-web-1"), first("data-web-2"));
  EXPECT_NE(first("data-web-0"), first("data-web-2"));
  EXPECT_EQ(first("data-web-0"), first("data-web-3"));
  EXPECT_EQ(first("data"), first("data")) << "the same claim, the same place";
  EXPECT_EQ(topology_requirement({.cluster = cluster, .claim_name = "data-web-1"})->requisite, cluster);
}

TEST(Topology, Covers) {
  EXPECT_TRUE(covers({}, zone("a")));
  EXPECT_TRUE(covers(zone("a"), {{"zone", "a"}, {"rack", "1"}}));
  EXPECT_FALSE(covers({{"zone", "a"}, {"rack", "1"}}, zone("a")));
  EXPECT_FALSE(covers(zone("a"), zone("b")));
}

}  // namespace
}  // namespace collage::engine
