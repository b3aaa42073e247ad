#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stop_token>

#include "operator/engine/node_operations.h"
#include "unit/testing/fake_driver.h"
#include "unit/testing/fake_nodes.h"

namespace collage::engine {
namespace {

using drivers::ControlPlace;
using drivers::Verb;
using ::testing::ElementsAre;
using testing::FakeDriver;
using testing::FakeDriverOptions;
using testing::FakeNodes;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

const base::Context kContext;
constexpr int64_t kMi = 1 << 20;

drivers::CreateRequest a_request(const std::string& name = "pvc-1") {
  return {.name = name, .required_bytes = 8 * kMi, .capabilities = {drivers::VolumeCapability{}}};
}

// A share that nodes a, b and c all reach.
class SharedProxy : public ::testing::Test {
 protected:
  SharedProxy() {
    options.info.control = ControlPlace::kAnyNode;
    share = std::make_shared<FakeDriver>(options);
    for (const char* node : {"a", "b", "c"}) nodes.add(node, share);
    proxy = make_node_proxy(testing::fake_kind(options), "fast", nodes);
  }
  FakeDriverOptions options;
  std::shared_ptr<FakeDriver> share;
  FakeNodes nodes;
  std::unique_ptr<drivers::Driver> proxy;
};

// A directory of its own on each of the nodes a, b and c.
class OwnerProxy : public ::testing::Test {
 protected:
  OwnerProxy() {
    options.info.control = ControlPlace::kOwnerNode;
    options.total_bytes = 16 * kMi;
    for (const char* node : {"a", "b", "c"}) {
      options.node = node;
      disks[node] = std::make_shared<FakeDriver>(options);
      nodes.add(node, disks[node]);
    }
    proxy = make_node_proxy(testing::fake_kind(options), "disk", nodes);
  }
  static drivers::Topology at(const std::string& node) {
    return {{drivers::node_topology_key("fake"), node}};
  }
  static drivers::CreateRequest a_request_at(const std::vector<std::string>& preferred,
                                             const std::string& name = "pvc-1") {
    drivers::CreateRequest request = a_request(name);
    for (const std::string& node : preferred) request.preferred.push_back(at(node));
    request.requisite = request.preferred;
    return request;
  }
  FakeDriverOptions options;
  std::map<std::string, std::shared_ptr<FakeDriver>> disks;
  FakeNodes nodes;
  std::unique_ptr<drivers::Driver> proxy;
};

TEST_F(SharedProxy, HasThePartsOfItsKind) {
  EXPECT_NE(proxy->attacher(), nullptr);
  EXPECT_NE(proxy->capacity_reporter(), nullptr);
  EXPECT_EQ(proxy->info().kind, "fake");
  FakeDriverOptions plain = options;
  plain.attaches = plain.reports_capacity = false;
  const auto other = make_node_proxy(testing::fake_kind(plain), "fast", nodes);
  EXPECT_EQ(other->attacher(), nullptr);
  EXPECT_EQ(other->capacity_reporter(), nullptr);
}

TEST_F(SharedProxy, CarriesEveryCall) {
  const auto volume = proxy->create(kContext, a_request());
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_EQ(*volume, share->volumes().at(volume->id));
  EXPECT_EQ(proxy->find(kContext, "pvc-1")->value(), *volume);
  EXPECT_FALSE(proxy->find(kContext, "pvc-2")->has_value());
  EXPECT_EQ(*proxy->inspect(kContext, volume->id), *volume);
  EXPECT_EQ(proxy->inspect(kContext, "vol-other").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(proxy->list(kContext, "", 0)->volumes, ElementsAre(*volume));
  const auto published = proxy->attacher()->attach(kContext, volume->id, "a", {}, false);
  ASSERT_TRUE(published.ok()) << published.status();
  EXPECT_EQ(published->at("device"), volume->id);
  const auto other = proxy->attacher()->attach(kContext, volume->id, "b", {}, false).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.message()), HasSubstr("is attached to a"));
  EXPECT_EQ(proxy->remove(kContext, volume->id).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(proxy->attacher()->detach(kContext, volume->id, "a").ok());
  EXPECT_EQ(proxy->capacity_reporter()->capacity(kContext, {}, {})->available_bytes,
            options.total_bytes - 8 * kMi);
  EXPECT_TRUE(proxy->remove(kContext, volume->id).ok());
  EXPECT_THAT(share->volumes(), IsEmpty());
  EXPECT_EQ(proxy->access(volume->id, {}, {}).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SharedProxy, RefusesWhatCanNeverBeWithoutAskingANode) {
  drivers::CreateRequest request = a_request();
  request.parameters = {{"colour", "red"}};
  EXPECT_EQ(proxy->create(kContext, request).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(nodes.asked(Verb::kCreate), IsEmpty());
}

TEST_F(SharedProxy, WithoutAReadyNodeSaysWhatToDo) {
  for (const char* node : {"a", "b", "c"}) nodes.set_ready(node, false);
  const auto status = proxy->create(kContext, a_request()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no node reaches backend \"fast\" at present: see"));
  EXPECT_EQ(proxy->find(kContext, "pvc-1").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(proxy->attacher()->detach(kContext, "vol-1", "a").code(), absl::StatusCode::kUnavailable);
}

TEST_F(SharedProxy, AReadGoesOnToTheNextNode) {
  nodes.silence([](const std::string& node, Verb) {
    return node == "c" ? absl::OkStatus() : absl::UnavailableError("does not answer");
  });
  EXPECT_TRUE(proxy->find(kContext, "pvc-1").ok());
  EXPECT_THAT(nodes.asked(Verb::kFind), ElementsAre("a", "b", "c"));
  EXPECT_TRUE(proxy->find(kContext, "pvc-1").ok());
  EXPECT_THAT(nodes.asked(Verb::kFind), ElementsAre("a", "b", "c", "c")) << "the last good one first";
}

TEST_F(SharedProxy, AReadThatWasAnsweredIsNotRepeated) {
  share->fail_before(Verb::kInspect, absl::PermissionDeniedError("no"));
  const auto status = proxy->inspect(kContext, "vol-1").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(status.message(), "node a: no");
  EXPECT_THAT(nodes.asked(Verb::kInspect), ElementsAre("a"));
}

TEST_F(SharedProxy, AReadEndsWithItsContext) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_FALSE(proxy->find(base::Context(stop.get_token()), "pvc-1").ok());
  EXPECT_THAT(nodes.asked(Verb::kFind), IsEmpty());
}

// Answers nothing at all, as a node that died a moment ago.
FakeNodes::Fault dead(const std::string& which) {
  return [which](const std::string& node, Verb) {
    return node == which ? absl::UnavailableError("does not answer") : absl::OkStatus();
  };
}

TEST_F(SharedProxy, AWriteThatTakesLongStaysWithItsNode) {
  nodes.lose([lost = false](const std::string&, Verb verb) mutable {
    if (verb != Verb::kCreate || std::exchange(lost, true)) return absl::OkStatus();
    return absl::DeadlineExceededError("it has answered nothing at all for some seconds");
  });
  EXPECT_TRUE(proxy->create(kContext, a_request()).ok());
  EXPECT_THAT(nodes.asked(Verb::kProbe), ElementsAre("a")) << "asked for a sign of life";
  EXPECT_THAT(nodes.asked(Verb::kCreate), ElementsAre("a", "a"));
  EXPECT_THAT(share->volumes(), SizeIs(1));
}

TEST_F(SharedProxy, AWriteLeavesANodeThatGivesNoSignOfLife) {
  nodes.silence(dead("a"));
  EXPECT_TRUE(proxy->create(kContext, a_request("pvc-1")).ok());
  EXPECT_TRUE(proxy->create(kContext, a_request("pvc-2")).ok());
  EXPECT_THAT(nodes.asked(Verb::kCreate), ElementsAre("a", "b", "b")) << "the next one avoids it at once";
}

// The answer was lost, not the effect: the node that repeats the write finds it done.
TEST_F(SharedProxy, AWriteDoneByBothNodesHasOneEffect) {
  nodes.lose(dead("a"));
  ASSERT_TRUE(proxy->create(kContext, a_request()).ok());
  EXPECT_THAT(nodes.asked(Verb::kCreate), ElementsAre("a", "b"));
  EXPECT_THAT(share->volumes(), SizeIs(1));
  EXPECT_EQ(share->calls(Verb::kCreate), 2);
}

// It could be undone before it happens: the attach that is late on one node after the detach on another.
TEST_F(SharedProxy, AnotherWriteComesBehindTheOneThatMayStillBeUnderWay) {
  ASSERT_TRUE(proxy->create(kContext, a_request()).ok());
  nodes.silence(dead("a"));
  ASSERT_TRUE(proxy->attacher()->attach(kContext, "vol-pvc-1", "c", {}, false).ok());
  ASSERT_THAT(nodes.asked(Verb::kAttach), ElementsAre("a", "b"));
  EXPECT_TRUE(absl::IsUnavailable(proxy->attacher()->detach(kContext, "vol-pvc-1", "c")));
  EXPECT_TRUE(absl::IsUnavailable(proxy->attacher()->detach(kContext, "vol-pvc-1", "c")));
  EXPECT_THAT(nodes.asked(Verb::kDetach), ElementsAre("a", "a"));
  EXPECT_EQ(share->volumes().at("vol-pvc-1").attached_to, "c");
  nodes.silence(dead("nobody"));
  EXPECT_TRUE(proxy->attacher()->detach(kContext, "vol-pvc-1", "c").ok());
  EXPECT_TRUE(proxy->attacher()->attach(kContext, "vol-pvc-1", "b", {}, false).ok());
  EXPECT_THAT(nodes.asked(Verb::kDetach), ElementsAre("a", "a", "a")) << "its answer ends the wait";
}

// What another node says of a create that this one may still be at is not the last word.
TEST_F(SharedProxy, ThatThereIsNoVolumeIsBelievedOnlyOfANodeThatMayBeMakingIt) {
  nodes.silence(dead("a"));
  share->fail_before(Verb::kCreate, absl::ResourceExhaustedError("full"));
  ASSERT_TRUE(absl::IsResourceExhausted(proxy->create(kContext, a_request()).status()));
  ASSERT_THAT(nodes.asked(Verb::kCreate), ElementsAre("a", "b"));
  EXPECT_TRUE(absl::IsUnavailable(proxy->find(kContext, "pvc-1").status()));
  nodes.set_ready("a", false);
  EXPECT_THAT(std::string(proxy->find(kContext, "pvc-1").status().message()),
              HasSubstr("cannot tell whether volume pvc-1 exists: node a does not reach backend"));
  nodes.set_ready("a", true);
  nodes.silence(dead("nobody"));
  const auto found = proxy->find(kContext, "pvc-1");
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(found->has_value());
  EXPECT_EQ(nodes.asked(Verb::kFind).back(), "a");
}

// A detach must not wait for a node that is gone: the volume's pod waits for it on another one.
TEST_F(SharedProxy, AWriteLeavesANodeThatIsReadyNoMore) {
  nodes.silence(dead("a"));
  ASSERT_TRUE(proxy->attacher()->detach(kContext, "vol-1", "a").ok());
  EXPECT_THAT(nodes.asked(Verb::kDetach), ElementsAre("a", "b"));
  EXPECT_TRUE(absl::IsUnavailable(proxy->remove(kContext, "vol-1")));
  nodes.set_ready("a", false);
  EXPECT_TRUE(proxy->remove(kContext, "vol-1").ok());
  EXPECT_THAT(nodes.asked(Verb::kRemove), ElementsAre("a", "b"));
}

TEST_F(SharedProxy, WhereEveryNodeIsSilentTheLastOnesSilenceIsTheAnswer) {
  nodes.silence([](const std::string&, Verb) { return absl::UnavailableError("does not answer"); });
  const auto status = proxy->create(kContext, a_request()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(nodes.asked(Verb::kCreate), ElementsAre("a", "b", "c"));
}

TEST_F(SharedProxy, CarriesAFenceOverNodes) {
  ASSERT_TRUE(proxy->create(kContext, a_request()).ok());
  ASSERT_TRUE(proxy->attacher()->attach(kContext, "vol-pvc-1", "a", {}, false).ok());
  EXPECT_EQ(proxy->attacher()->fence(kContext, "vol-pvc-1", "a").code(), absl::StatusCode::kUnimplemented);
  share->can_fence(true);
  EXPECT_TRUE(proxy->attacher()->fence(kContext, "vol-pvc-1", "a").ok());
  EXPECT_EQ(share->volumes().at("vol-pvc-1").attached_to, "");
}

// ---- Probe

class FirstProbe : public ::testing::Test {
 protected:
  // Nodes without a shared directory: each would make a mark of its own. None is ready before the first
  // probe.
  void add(const std::string& node, const std::string& system_id) {
    FakeDriverOptions options;
    options.info.control = ControlPlace::kAnyNode;
    options.system_id = system_id;
    directories[node] = std::make_shared<FakeDriver>(options);
    nodes.add(node, directories[node], false);
    if (!proxy) proxy = make_node_proxy(testing::fake_kind(options), "fast", nodes);
  }
  std::map<std::string, std::shared_ptr<FakeDriver>> directories;
  FakeNodes nodes;
  std::unique_ptr<drivers::Driver> proxy;
};

TEST_F(FirstProbe, MarksExactlyOneNode) {
  for (const char* node : {"a", "b", "c"}) add(node, "");
  const auto result = proxy->probe(kContext, {.initialize = true});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->system_id.empty());
  int marked = 0;
  for (const auto& [node, directory] : directories) marked += directory->probe(kContext, {}).ok();
  EXPECT_EQ(marked, 1);
}

TEST_F(FirstProbe, FindsTheMarkThatThereIs) {
  add("a", "");
  add("b", "there");
  const auto result = proxy->probe(kContext, {.initialize = true});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->system_id, "there");
  EXPECT_FALSE(directories["a"]->probe(kContext, {}).ok()) << "no second mark";
}

TEST_F(FirstProbe, PassesOverANodeThatDoesNotAnswer) {
  add("a", "");
  add("b", "");
  nodes.silence([](const std::string& node, Verb) {
    return node == "a" ? absl::UnavailableError("does not answer") : absl::OkStatus();
  });
  EXPECT_TRUE(proxy->probe(kContext, {.initialize = true}).ok());
  EXPECT_TRUE(directories["b"]->probe(kContext, {}).ok());
}

TEST_F(FirstProbe, TellsWhatANodeSaysRatherThanThatAnotherIsSilent) {
  add("a", "");
  add("b", "");
  nodes.silence([](const std::string& node, Verb) {
    return node == "a" ? absl::UnavailableError("does not answer")
                       : absl::NotFoundError("/srv/share is missing on b");
  });
  for (bool initialize : {true, false}) {
    const auto status = proxy->probe(kContext, {.initialize = initialize}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(status.message(), "/srv/share is missing on b");
  }
}

TEST_F(FirstProbe, MarksNothingUnlessAllowed) {
  add("a", "");
  EXPECT_EQ(proxy->probe(kContext, {}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(directories["a"]->probe(kContext, {}).ok());
}

TEST_F(FirstProbe, HoldsTheIdentityAgainstWhatIsExpected) {
  add("a", "other");
  const auto status = proxy->probe(kContext, {.expected_system_id = "mine"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the system is other, not mine"));
}

TEST_F(FirstProbe, WithoutAgentsSaysWhatToDo) {
  add("a", "");
  nodes.remove("a");
  const auto status = proxy->probe(kContext, {.initialize = true}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("see that the node agents run"));
}

// ---- Kinds whose volumes live on one node

TEST_F(OwnerProxy, CreatesOnThePreferredNode) {
  const auto volume = proxy->create(kContext, a_request_at({"b", "a"}));
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_EQ(volume->id, "b/pvc-1");
  EXPECT_THAT(volume->accessible, ElementsAre(at("b")));
  EXPECT_THAT(nodes.asked(Verb::kCreate), ElementsAre("b"));
}

TEST_F(OwnerProxy, GoesOnWhereThereIsRoom) {
  ASSERT_TRUE(proxy->create(kContext, a_request_at({"b"}, "pvc-1")).ok());
  ASSERT_TRUE(proxy->create(kContext, a_request_at({"b"}, "pvc-2")).ok());
  EXPECT_EQ(proxy->create(kContext, a_request_at({"b"}, "pvc-3")).status().code(),
            absl::StatusCode::kResourceExhausted);
  const auto volume = proxy->create(kContext, a_request_at({"b", "c"}, "pvc-3"));
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_EQ(volume->id, "c/pvc-3");
}

TEST_F(OwnerProxy, PassesOverANodeThatIsNotReady) {
  nodes.set_ready("b", false);
  EXPECT_EQ(proxy->create(kContext, a_request_at({"b", "c"}))->id, "c/pvc-1");
  const auto status = proxy->create(kContext, a_request_at({"b"}, "pvc-2")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("node b does not reach backend \"disk\" at present"));
}

TEST_F(OwnerProxy, ACreateThatMayBeUnderWayIsNeverBegunElsewhere) {
  disks["b"]->fail_after(Verb::kCreate, absl::UnavailableError("answer lost"));
  EXPECT_EQ(proxy->create(kContext, a_request_at({"b", "c"})).status().code(),
            absl::StatusCode::kUnavailable);
  nodes.set_ready("b", false);
  EXPECT_EQ(proxy->create(kContext, a_request_at({"b", "c"})).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_THAT(disks["c"]->volumes(), IsEmpty());
  EXPECT_EQ(proxy->find(kContext, "pvc-1").status().code(), absl::StatusCode::kUnavailable)
      << "b may have it";
  nodes.set_ready("b", true);
  EXPECT_EQ(proxy->create(kContext, a_request_at({"b", "c"}))->id, "b/pvc-1");
}

TEST_F(OwnerProxy, ACreateWithoutANodeIsRefused) {
  const auto status = proxy->create(kContext, a_request()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("its topology must name one by the key fake.collage.storage/node"));
}

TEST_F(OwnerProxy, CallsOnAVolumeGoToItsNode) {
  ASSERT_TRUE(proxy->create(kContext, a_request_at({"c"})).ok());
  EXPECT_EQ(proxy->inspect(kContext, "c/pvc-1")->capacity_bytes, 8 * kMi);
  EXPECT_TRUE(proxy->attacher()->attach(kContext, "c/pvc-1", "c", {}, false).ok());
  EXPECT_TRUE(proxy->attacher()->detach(kContext, "c/pvc-1", "c").ok());
  EXPECT_TRUE(proxy->remove(kContext, "c/pvc-1").ok());
  for (Verb verb : {Verb::kInspect, Verb::kAttach, Verb::kDetach, Verb::kRemove})
    EXPECT_THAT(nodes.asked(verb), ElementsAre("c"));
  EXPECT_THAT(disks["c"]->volumes(), IsEmpty());
}

TEST_F(OwnerProxy, AVolumeOfNoNodeIsNone) {
  EXPECT_TRUE(proxy->remove(kContext, "pvc-1").ok());
  EXPECT_TRUE(proxy->attacher()->detach(kContext, "pvc-1", "a").ok());
  EXPECT_EQ(proxy->inspect(kContext, "pvc-1").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(proxy->attacher()->attach(kContext, "pvc-1", "a", {}, false).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(OwnerProxy, AVolumeOfANodeThatIsAwayIsNotGone) {
  nodes.set_ready("b", false);
  const auto status = proxy->remove(kContext, "b/pvc-1");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("volume b/pvc-1: node b does not reach"));
}

TEST_F(OwnerProxy, FindAsksEveryReadyNode) {
  ASSERT_TRUE(proxy->create(kContext, a_request_at({"c"})).ok());
  EXPECT_EQ(proxy->find(kContext, "pvc-1")->value().id, "c/pvc-1");
  EXPECT_FALSE(proxy->find(kContext, "pvc-2")->has_value());
  disks["b"]->fail_before(Verb::kFind, absl::InternalError("disk trouble"));
  const auto doubt = proxy->find(kContext, "pvc-2").status();
  EXPECT_EQ(doubt.code(), absl::StatusCode::kUnavailable) << "b might have it";
  EXPECT_THAT(std::string(doubt.message()),
              HasSubstr("cannot tell whether volume pvc-2 exists: node b: disk trouble"));
  for (const char* node : {"a", "b", "c"}) nodes.set_ready(node, false);
  EXPECT_EQ(proxy->find(kContext, "pvc-1").status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(OwnerProxy, ListGoesNodeByNode) {
  for (const char* node : {"a", "c"}) {
    for (const char* name : {"pvc-1", "pvc-2"})
      ASSERT_TRUE(proxy->create(kContext, a_request_at({node}, name)).ok());
  }
  std::vector<std::string> ids;
  std::string token;
  int pages = 0;
  do {
    const auto page = proxy->list(kContext, token, 1);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& volume : page->volumes) ids.push_back(volume.id);
    token = page->next_token;
  } while (!token.empty() && ++pages < 20);
  EXPECT_THAT(ids, ElementsAre("a/pvc-1", "a/pvc-2", "c/pvc-1", "c/pvc-2"));
}

TEST_F(OwnerProxy, AListStartsOverWhenItsNodeIsGone) {
  const auto page = proxy->list(kContext, "", 0);
  ASSERT_TRUE(page.ok()) << page.status();
  nodes.set_ready("b", false);
  EXPECT_EQ(proxy->list(kContext, page->next_token, 0).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(proxy->list(kContext, "nonsense", 0).status().code(), absl::StatusCode::kAborted);
}

TEST_F(OwnerProxy, CapacityIsTheNodesOrTheSum) {
  ASSERT_TRUE(proxy->create(kContext, a_request_at({"b"})).ok());
  EXPECT_EQ(*proxy->capacity_reporter()->capacity(kContext, {}, at("b")),
            (drivers::Capacity{16 * kMi, 8 * kMi, 8 * kMi}));
  EXPECT_EQ(*proxy->capacity_reporter()->capacity(kContext, {}, {}),
            (drivers::Capacity{48 * kMi, 40 * kMi, 16 * kMi}));
  nodes.silence([](const std::string& node, Verb) {
    return node == "b" ? absl::UnavailableError("does not answer") : absl::OkStatus();
  });
  EXPECT_EQ(proxy->capacity_reporter()->capacity(kContext, {}, {})->available_bytes, 32 * kMi);
  EXPECT_EQ(proxy->capacity_reporter()->capacity(kContext, {}, at("b")).status().code(),
            absl::StatusCode::kUnavailable);
  nodes.set_ready("a", false);
  EXPECT_EQ(proxy->capacity_reporter()->capacity(kContext, {}, at("a")).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(OwnerProxy, ProbeIsWellWhenOneNodeIs) {
  nodes.silence([](const std::string& node, Verb) {
    return node == "c" ? absl::OkStatus() : absl::NotFoundError("/data is missing");
  });
  EXPECT_TRUE(proxy->probe(kContext, {.initialize = true}).ok());
  nodes.silence([](const std::string&, Verb) { return absl::NotFoundError("/data is missing"); });
  EXPECT_EQ(proxy->probe(kContext, {.initialize = true}).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace collage::engine
