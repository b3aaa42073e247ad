// The operator is killed at everything that others can see it do: every write to the API server and every
// call of the driver, before it is sent and after its effect. The acts are not listed here but recorded from
// a life without a kill, so that a new one is cut too. After each: nothing leaked, nothing doubled, nothing
// lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "unit/reconcile/life.h"

namespace collage::reconcile {
namespace {

using testing::Act;
using testing::Life;
using testing::Side;
using testing::Store;
using ::testing::UnorderedElementsAreArray;
using Meanwhile = Life::Meanwhile;
using Phase = Life::Phase;

struct Case {
  Store store;
  Phase phase;
  Meanwhile meanwhile;
  std::string name() const {
    const char* word = meanwhile == Meanwhile::kNothing   ? "Kept"
                       : meanwhile == Meanwhile::kDeleted ? "Deleted"
                                                          : "Renewed";
    return absl::StrCat(to_string(store), Life::to_string(phase), word);
  }
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const Store store : {Store::kFake, Store::kImage, Store::kLocal}) {
    for (const Phase phase : Life::phases_of(store)) {
      for (const Meanwhile meanwhile : {Meanwhile::kNothing, Meanwhile::kDeleted, Meanwhile::kRenewed}) {
        // What is being deleted cannot be deleted once more.
        if (phase == Phase::kDelete && meanwhile == Meanwhile::kDeleted) continue;
        cases.push_back({store, phase, meanwhile});
      }
    }
  }
  return cases;
}

// What each phase does: a kind that is missing here, or not done any more, is a change of the contract.
std::vector<std::string> expected_kinds(Phase phase) {
  switch (phase) {
    case Phase::kProvision:
      return {"create configmaps", "driver create", "create persistentvolumes", "update configmaps"};
    case Phase::kAttach:
      return {"patch volumeattachments", "driver attach", "patch volumeattachments/status"};
    case Phase::kDetach:
      return {"driver detach", "patch volumeattachments"};
    case Phase::kDelete:
      return {"driver remove", "delete persistentvolumes", "patch persistentvolumes"};
  }
  return {};
}

class Cuts : public ::testing::Test {
 protected:
  // The acts of the phase when nothing happens. Events tell, they hold nothing: losing one loses nothing.
  static std::vector<Act> record(const Case& which) {
    Life life(which.store);
    life.cluster.start();
    if (!life.live_until(which.phase)) return {};
    life.cutter.record();
    if (!life.live(which.phase)) return {};
    std::vector<Act> acts;
    for (const Act& act : life.cutter.acts()) {
      if (!act.kind.ends_with(" events")) acts.push_back(act);
    }
    return acts;
  }

  // Until the operator is killed, or has nothing left to do and did not come to the cut.
  static void await_death(Life& life, Meanwhile meanwhile, Phase phase) {
    ASSERT_TRUE(life.cluster.wait([&] {
      const bool late = life.cutter.cut_awaited() && life.settled_already(meanwhile, phase);
      return life.cluster.dead() || (late && life.cutter.cut_awaited());
    }));
  }

  // One life with a kill at `act`, and another at the first act of the recovery when `twice`.
  static void die(const Case& which, const Act& act, Side side, bool twice) {
    Life life(which.store);
    life.cluster.start();
    ASSERT_TRUE(life.live_until(which.phase));
    life.cutter.cut(act, side);
    life.begin(which.phase);
    await_death(life, Meanwhile::kNothing, which.phase);
    ASSERT_TRUE(life.cluster.dead()) << "not done this time";
    life.cluster.kill();
    ASSERT_TRUE(life.nothing_is_wrong());
    life.happens(which.meanwhile);
    if (twice) {
      life.cutter.cut({"", 1}, side);
      life.cluster.start();
      await_death(life, which.meanwhile, which.phase);
      life.cluster.kill();
      ASSERT_TRUE(life.nothing_is_wrong());
    }
    life.cutter.record();
    life.cluster.start();
    ASSERT_TRUE(life.settled(which.meanwhile, which.phase));
    // What a node was asked for by the dead one may have come to its end only now.
    ASSERT_TRUE(life.cluster.wait([&] { return life.nodes_are_idle(); }));
    ASSERT_TRUE(life.nothing_is_wrong_at_rest());
  }
};

class OperatorCuts : public Cuts, public ::testing::WithParamInterface<Case> {};

TEST_P(OperatorCuts, NothingIsLeakedDoubledOrLost) {
  const std::vector<Act> acts = record(GetParam());
  ASSERT_FALSE(HasFailure());
  std::set<std::string> kinds;
  for (const Act& act : acts) kinds.insert(act.kind);
  EXPECT_THAT(kinds, UnorderedElementsAreArray(expected_kinds(GetParam().phase)));
  for (const Act& act : acts) {
    for (const Side side : {Side::kBefore, Side::kAfter}) {
      for (const bool twice : {false, true}) {
        SCOPED_TRACE(to_string(act, side) + (twice ? ", killed again" : ""));
        die(GetParam(), act, side, twice);
        if (HasFailure()) return;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AtEveryAct, OperatorCuts, ::testing::ValuesIn(all_cases()),
                         [](const auto& info) { return info.param.name(); });

// The operator is killed while nodes work for it: they carry on with what the dead one asked for, and answer
// it. A life waits for its nodes most of the time: all are lived at once.
class NodeCuts : public Cuts {
 protected:
  static void live_and_die(const Case& which) {
    const std::vector<Act> acts = record(which);
    std::set<std::string> kinds;
    std::vector<std::jthread> lives;
    for (const Act& act : acts) {
      const bool by_node = act.kind.starts_with("driver ") || act.kind.starts_with("patch storagenodes");
      if (!by_node || act.nth > 1) continue;
      kinds.insert(act.kind);
      for (const Side side : {Side::kBefore, Side::kAfter}) {
        lives.emplace_back([&which, act, side] {
          SCOPED_TRACE(which.name() + " " + to_string(act, side));
          die(which, act, side, false);
        });
      }
    }
    lives.clear();
    std::set<std::string> expected{"patch storagenodes", "patch storagenodes/status"};
    for (const std::string& kind : expected_kinds(which.phase)) {
      if (kind.starts_with("driver ")) expected.insert(kind);
    }
    EXPECT_EQ(kinds, expected);
  }
};

TEST_F(NodeCuts, NothingIsLeakedDoubledOrLost) {
  const std::vector<Case> cases = {{Store::kNodes, Phase::kProvision, Meanwhile::kNothing},
                                   {Store::kNodes, Phase::kProvision, Meanwhile::kDeleted},
                                   {Store::kNodes, Phase::kProvision, Meanwhile::kRenewed},
                                   {Store::kNodes, Phase::kAttach, Meanwhile::kNothing},
                                   {Store::kNodes, Phase::kAttach, Meanwhile::kDeleted},
                                   {Store::kNodes, Phase::kDetach, Meanwhile::kNothing},
                                   {Store::kNodes, Phase::kDelete, Meanwhile::kNothing},
                                   {Store::kNodes, Phase::kDelete, Meanwhile::kRenewed}};
  std::vector<std::jthread> all;
  for (const Case& which : cases) all.emplace_back([&which] { live_and_die(which); });
}

}  // namespace
}  // namespace collage::reconcile
