// The operator is killed at everything that others can see it do when something rare happens, as
// cuts_test.cpp does in an ordinary life.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "unit/reconcile/life.h"
#include "unit/testing/other_writer.h"
#include "unit/testing/shrinking_driver.h"

namespace collage::reconcile {
namespace {

using base::Json;
using drivers::Verb;
using testing::Act;
using testing::Cluster;
using testing::kFake;
using testing::Life;
using testing::Side;
using ::testing::UnorderedElementsAreArray;
using Meanwhile = Life::Meanwhile;

constexpr char kClaim[] = "default/data";
constexpr char kAttachment[] = "csi-pvc-uid-data-node-a";
constexpr char kSelectedNode[] = "/metadata/annotations/volume.kubernetes.io~1selected-node";

struct Rare {
  std::string name;
  testing::Store store;
  std::function<void(Life&)> prepare;  // before the operator starts
  std::function<void(Life&)> before;   // while it runs and is not watched yet
  std::function<void(Life&)> begin;
  // Asked again and again: what others do next; true once the operator has done its part.
  std::function<bool(Life&)> done;
  std::vector<std::string> kinds;  // of what it does
  bool has_claim = true;           // "data", which may be deleted meanwhile
  friend void PrintTo(const Rare& rare, std::ostream* out) { *out << rare.name; }
};

void nothing(Life&) {}

bool served(Life& life) {
  return life.cluster.bound("data") && life.cluster.no_intents();
}

void select_node(Cluster& cluster) {
  cluster.api.update(kube::kPersistentVolumeClaims, kClaim, [](Json& claim) {
    claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = "node-a";
  });
}

// A volume that somebody else made is attached: its PersistentVolume gets our finalizer first.
Rare static_volume() {
  return {"StaticVolume",
          testing::Store::kFake,
          [](Life& life) {
            life.cluster.driver->put({.id = "vol-theirs", .name = "theirs", .capacity_bytes = 1 << 20});
            life.cluster.api.put(
                testing::a_volume("theirs").of_driver(kFake).handle("fast/vol-theirs").retain().bound());
          },
          nothing,
          [](Life& life) { life.cluster.api.put(testing::an_attachment("theirs").of_driver(kFake)); },
          [](Life& life) { return base::get_bool(*life.cluster.attachment("theirs"), "/status/attached"); },
          {"patch persistentvolumes", "update volumeattachments", "driver attach",
           "update volumeattachments/status"},
          false};
}

// The node that the scheduler chose is full: the claim is given back, and the scheduler chooses again.
Rare full_node() {
  return {"FullNode",
          testing::Store::kOwned,
          [](Life& life) {
            life.cluster.api.put(Cluster::storage_class().wait_for_first_consumer());
            life.cluster.driver->fail_before(Verb::kCreate, absl::ResourceExhaustedError("node-a is full"));
          },
          nothing,
          [](Life& life) {
            life.cluster.api.put(testing::a_claim("data").of_driver(kFake).size("1Mi").on_node("node-a"));
          },
          [](Life& life) {
            const auto claim = life.cluster.api.get(kube::kPersistentVolumeClaims, kClaim);
            if (claim.has_value() && base::get_string(*claim, kSelectedNode).empty())
              select_node(life.cluster);
            return served(life);
          },
          {"create configmaps", "driver create", "driver inspect", "driver find",
           "patch persistentvolumeclaims", "update configmaps", "create persistentvolumes"}};
}

// The storage made less than was asked for: that is removed, and made anew.
Rare small_volume() {
  return {"SmallVolume",
          testing::Store::kFake,
          [](Life& life) {
            auto driver = std::make_shared<testing::ShrinkingDriver>(life.cluster.driver);
            driver->shrink = 1;
            life.cluster.driver_used = driver;
          },
          nothing,
          [](Life& life) { life.begin(Life::Phase::kProvision); },
          served,
          {"create configmaps", "driver create", "driver remove", "update configmaps",
           "create persistentvolumes"}};
}

// A node falls silent with a volume: who waits is told, and once a person says that the node is off the
// volume is taken from it.
Rare lost_node() {
  const auto lost = [](const Cluster& cluster) {
    const auto node = cluster.op->world.nodes.get("node-a");
    return node != nullptr && !node->ready && !node->volumes_in_use.empty();
  };
  return {
      "LostNode",
      testing::Store::kFake,
      [](Life& life) { life.cluster.driver->can_fence(true); },
      [lost](Life& life) {
        Cluster& cluster = life.cluster;
        ASSERT_TRUE(life.live(Life::Phase::kProvision));
        ASSERT_TRUE(life.live(Life::Phase::kAttach));
        cluster.api.update(kube::kNodes, "node-a", [](Json& node) {
          node["status"]["volumesInUse"] = {"kubernetes.io/csi/fake.collage.storage^fast/vol-pvc-uid-data"};
          node["status"]["conditions"] = {{{"type", "Ready"}, {"status", "Unknown"}}};
        });
        ASSERT_TRUE(cluster.wait([&] { return lost(cluster); }));
      },
      [](Life& life) { life.begin(Life::Phase::kDetach); },
      [](Life& life) {
        const auto attachment = life.cluster.attachment("pvc-uid-data");
        if (!attachment.has_value()) return true;
        if (!base::get_string(*attachment, "/status/detachError/message").empty()) {
          life.cluster.api.update(kube::kNodes, "node-a", [](Json& node) {
            node["spec"]["taints"] = {{{"key", "node.kubernetes.io/out-of-service"},
                                       {"value", "nodeshutdown"},
                                       {"effect", "NoExecute"}}};
          });
        }
        return false;
      },
      {"patch volumeattachments/status", "driver inspect", "driver fence", "update volumeattachments"}};
}

// Somebody else's finalizer keeps the attachment: it says that it is attached no more.
Rare foreign_finalizer() {
  return {"ForeignFinalizer",
          testing::Store::kFake,
          nothing,
          [](Life& life) {
            Cluster& cluster = life.cluster;
            ASSERT_TRUE(life.live(Life::Phase::kProvision));
            ASSERT_TRUE(life.live(Life::Phase::kAttach));
            cluster.api.update(kube::kVolumeAttachments, kAttachment, testing::add_finalizer);
            ASSERT_TRUE(cluster.wait([&] {
              return cluster.op->world.attachments.get(kAttachment)->meta.has_finalizer("theirs");
            }));
          },
          [](Life& life) { life.begin(Life::Phase::kDetach); },
          [](Life& life) {
            const auto attachment = life.cluster.attachment("pvc-uid-data");
            if (!attachment.has_value()) return true;
            const Json* finalizers = base::find(*attachment, "/metadata/finalizers");
            if (finalizers != nullptr && *finalizers == Json({"theirs"}) &&
                !base::get_bool(*attachment, "/status/attached")) {
              life.cluster.api.erase(kube::kVolumeAttachments, kAttachment);
            }
            return false;
          },
          {"driver detach", "update volumeattachments", "patch volumeattachments/status"}};
}

class RareCuts : public ::testing::TestWithParam<Rare> {
 protected:
  static bool settle(Life& life, Meanwhile meanwhile = Meanwhile::kNothing) {
    const bool came = life.cluster.wait([&] {
      const bool done = GetParam().done(life);
      return meanwhile == Meanwhile::kNothing ? done : life.settled_already(meanwhile, {});
    });
    EXPECT_TRUE(came) << "did not come to its end";
    return life.nothing_is_wrong_at_rest() && came;
  }

  static std::vector<Act> record() {
    Life life(GetParam().store);
    start(life);
    life.cutter.record();
    GetParam().begin(life);
    if (!settle(life)) return {};
    std::vector<Act> acts;
    for (const Act& act : life.cutter.acts()) {
      if (!act.kind.ends_with(" events")) acts.push_back(act);
    }
    return acts;
  }

  // False when the life came to its end without this act.
  static bool die(const Act& act, Side side, Meanwhile meanwhile) {
    Life life(GetParam().store);
    start(life);
    life.cutter.cut(act, side);
    GetParam().begin(life);
    // Once it has come to the act it dies, though the effect may be seen before.
    EXPECT_TRUE(life.cluster.wait([&] {
      const bool late = GetParam().done(life) && life.cutter.cut_awaited();
      return life.cluster.dead() || late;
    }));
    const bool died = life.cluster.dead();
    life.cluster.kill();
    EXPECT_TRUE(life.nothing_is_wrong());
    life.happens(meanwhile);
    life.cutter.record();
    life.cluster.start();
    settle(life, meanwhile);
    return died;
  }

 private:
  static void start(Life& life) {
    GetParam().prepare(life);
    life.cluster.start();
    GetParam().before(life);
  }
};

TEST_P(RareCuts, NothingIsLeakedDoubledOrLost) {
  const std::vector<Act> acts = record();
  ASSERT_FALSE(HasFailure());
  std::set<std::string> kinds;
  for (const Act& act : acts) kinds.insert(act.kind);
  EXPECT_THAT(kinds, UnorderedElementsAreArray(GetParam().kinds));
  for (const Meanwhile meanwhile : {Meanwhile::kNothing, Meanwhile::kDeleted}) {
    if (meanwhile == Meanwhile::kDeleted && !GetParam().has_claim) continue;
    for (const Side side : {Side::kBefore, Side::kAfter}) {
      std::set<std::string> cut;
      for (const Act& act : acts) {
        SCOPED_TRACE(to_string(act, side) + (meanwhile == Meanwhile::kDeleted ? ", deleted" : ""));
        if (die(act, side, meanwhile)) cut.insert(act.kind);
        if (HasFailure()) return;
      }
      EXPECT_EQ(cut, kinds);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AtEveryAct, RareCuts,
                         ::testing::Values(static_volume(), full_node(), small_volume(), lost_node(),
                                           foreign_finalizer()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace collage::reconcile
