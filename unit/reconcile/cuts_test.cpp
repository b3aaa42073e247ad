// The operator is killed at everything that others can see it do: every write to the API server and every
// call of the driver, before it is sent and after its effect. The acts are not listed here but recorded from
// a life without a kill, so that a new one is cut too. After each: nothing leaked, nothing doubled, nothing
// lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
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

std::vector<Case> cases_of(const std::vector<Store>& stores) {
  std::vector<Case> cases;
  for (const Store store : stores) {
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
      return {"update volumeattachments", "driver attach", "update volumeattachments/status"};
    case Phase::kDetach:
      return {"driver detach", "update volumeattachments"};
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

INSTANTIATE_TEST_SUITE_P(AtEveryAct, OperatorCuts,
                         ::testing::ValuesIn(cases_of({Store::kFake, Store::kImage, Store::kLocal})),
                         [](const auto& info) { return info.param.name(); });

// The operator is killed while nodes work for it: they carry on with what the dead one asked for, and answer
// it. A life waits for its nodes most of the time: many are lived at once.
class NodeCuts : public Cuts {
 protected:
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  static constexpr size_t kStride = 7;  // a sample of all deaths: such a program is ten times as slow
#else
  static constexpr size_t kStride = 1;
#endif
  struct Death {
    Case which;
    Act act;
    Side side;
    bool twice;
    std::string name() const {
      return absl::StrCat(which.name(), " ", to_string(act, side), twice ? ", killed again" : "");
    }
  };

  static bool is_of_nodes(const Act& act) {
    return act.kind.starts_with("driver ") || act.kind.starts_with("patch storagenodes");
  }

  static void expect_kinds(Phase phase, const std::vector<Act>& acts) {
    std::set<std::string> kinds;
    for (const Act& act : acts) kinds.insert(act.kind);
    std::vector<std::string> expected = expected_kinds(phase);
    expected.insert(expected.end(), {"patch storagenodes", "patch storagenodes/status"});
    EXPECT_THAT(kinds, UnorderedElementsAreArray(expected)) << Life::to_string(phase);
  }

  // Runs each of them, `at_once` at a time.
  template <typename Work>
  static void all(size_t count, size_t at_once, const Work& work) {
    std::atomic<size_t> next = 0;
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < std::min(count, at_once); ++i) {
      threads.emplace_back([&] {
        for (size_t mine = next++; mine < count; mine = next++) work(mine);
      });
    }
  }
};

TEST_F(NodeCuts, NothingIsLeakedDoubledOrLost) {
  const std::vector<Phase> phases = Life::phases_of(Store::kNodes);
  std::vector<std::vector<Act>> acts(phases.size());
  all(phases.size(), phases.size(), [&](size_t i) {
    acts[i] = record({Store::kNodes, phases[i], Meanwhile::kNothing});
    expect_kinds(phases[i], acts[i]);
  });
  ASSERT_FALSE(HasFailure());
  std::vector<Death> deaths;
  for (const Case& which : cases_of({Store::kNodes})) {
    const auto phase = std::find(phases.begin(), phases.end(), which.phase);
    for (const Act& act : acts[phase - phases.begin()]) {
      for (const Side side : {Side::kBefore, Side::kAfter}) {
        deaths.push_back({which, act, side, false});
        // Of the rest OperatorCuts has the second ones.
        if (is_of_nodes(act)) deaths.push_back({which, act, side, true});
      }
    }
  }
  all((deaths.size() + kStride - 1) / kStride, 64, [&](size_t i) {
    const Death& death = deaths[i * kStride];
    SCOPED_TRACE(death.name());
    die(death.which, death.act, death.side, death.twice);
  });
}

}  // namespace
}  // namespace collage::reconcile
