// Volumes that live on one node: where a create was begun decides where it is ended, and only that node's
// word proves that there is none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/engine/node_operations.h"
#include "unit/reconcile/cluster.h"
#include "unit/testing/fake_nodes.h"

namespace collage::reconcile {
namespace {

using drivers::Verb;
using testing::Cluster;
using testing::FakeDriver;
using testing::FakeDriverOptions;
using testing::FakeNodes;
using testing::kFake;
using ::testing::SizeIs;

// A disk on each of node-a and node-b.
class OwnerNodes : public ::testing::Test {
 protected:
  OwnerNodes() {
    FakeDriverOptions options;
    options.info.control = drivers::ControlPlace::kOwnerNode;
    const std::string key = drivers::node_topology_key("fake");
    for (const std::string node : {"node-a", "node-b"}) {
      options.node = node;
      disks_[node] = std::make_shared<FakeDriver>(options);
      nodes_.add(node, disks_[node]);
      cluster_.api.put(testing::a_node(node).label(key, node));
      cluster_.api.put(testing::a_csi_node(node).driver(kFake, node, {key}));
    }
    cluster_.kinds = {testing::fake_kind(options)};
    cluster_.driver_used = engine::make_node_proxy(cluster_.kinds.front(), "fast", nodes_);
  }
  ~OwnerNodes() override { cluster_.kill(); }

  void fill(const std::string& node) {
    disks_[node]->put({.id = node + "/filler", .name = "filler", .capacity_bytes = int64_t{1} << 40});
  }
  void empty(const std::string& node) { ASSERT_TRUE(disks_[node]->remove({}, node + "/filler").ok()); }
  // Of the claim alone, on both.
  std::vector<std::string> volumes() const {
    std::vector<std::string> ids;
    for (const auto& [node, disk] : disks_) {
      for (const auto& [id, volume] : disk->volumes()) {
        if (volume.name != "filler") ids.push_back(id);
      }
    }
    return ids;
  }
  // The node where a claim that may live anywhere goes first.
  std::string first_choice() {
    cluster_.start();
    cluster_.api.put(cluster_.claim("data"));
    EXPECT_TRUE(cluster_.wait([&] { return cluster_.bound("data") && cluster_.no_intents(); }));
    const std::string node = volumes().empty() ? "" : volumes().front().substr(0, 6);
    cluster_.delete_claim("data");
    EXPECT_TRUE(cluster_.wait([&] { return volumes().empty() && !cluster_.pv("pvc-uid-data").has_value(); }));
    return node;
  }

  std::map<std::string, std::shared_ptr<FakeDriver>> disks_;
  FakeNodes nodes_;
  Cluster cluster_;
};

TEST_F(OwnerNodes, ACreateThatWentOnToASecondNodeIsEndedThereByTheNextProcess) {
  const std::string first = first_choice();
  const std::string second = first == "node-a" ? "node-b" : "node-a";
  fill(first);
  disks_[second]->after([&](const base::Context&, Verb verb, const std::string&) -> absl::Status {
    if (verb != Verb::kCreate || cluster_.dead()) return absl::OkStatus();
    cluster_.die();
    return absl::UnavailableError("killed");
  });
  cluster_.api.put(cluster_.claim("data"));
  ASSERT_TRUE(cluster_.wait([&] { return cluster_.dead(); }));
  cluster_.kill();
  disks_[second]->after({});
  empty(first);  // it has room by now
  cluster_.start();
  ASSERT_TRUE(cluster_.wait([&] { return cluster_.bound("data") && cluster_.no_intents(); }));
  EXPECT_THAT(volumes(), SizeIs(1));
  EXPECT_EQ(base::get_string(*cluster_.pv("pvc-uid-data"), "/spec/csi/volumeHandle"),
            "fast/" + second + "/pvc-uid-data");
}

TEST_F(OwnerNodes, AFullNodeIsPassedOver) {
  const std::string first = first_choice();
  fill(first);
  cluster_.api.put(cluster_.claim("data"));
  ASSERT_TRUE(cluster_.wait([&] { return cluster_.bound("data") && cluster_.no_intents(); }));
  EXPECT_THAT(volumes(), SizeIs(1));
}

// find() asks the nodes that are ready; the one where the create was begun may be the one that is not.
TEST_F(OwnerNodes, ThatThereIsNoVolumeIsBelievedOnlyOfTheNodeItself) {
  cluster_.api.put(cluster_.storage_class().wait_for_first_consumer());
  cluster_.start();
  disks_["node-a"]->after([&](const base::Context&, Verb verb, const std::string&) -> absl::Status {
    if (verb != Verb::kCreate) return absl::OkStatus();
    nodes_.set_ready("node-a", false);  // and it answers a final error, though the volume is there
    return absl::InternalError("half done");
  });
  cluster_.api.put(cluster_.claim("data").on_node("node-a"));
  ASSERT_TRUE(cluster_.wait_event("ProvisioningFailed", "half done"));
  EXPECT_FALSE(cluster_.no_intents()) << "node-a was not asked";
  cluster_.delete_claim("data");
  disks_["node-a"]->after({});
  nodes_.set_ready("node-a", true);
  cluster_.use_backend();
  EXPECT_TRUE(cluster_.wait([&] { return volumes().empty() && cluster_.no_intents(); }));
}

}  // namespace
}  // namespace collage::reconcile
