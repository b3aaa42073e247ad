#include "operator/reconcile/backend_decision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace collage::reconcile {
namespace {

using base::Json;
using testing::HasSubstr;

BackendFacts good_share() {
  BackendFacts facts;
  facts.control = drivers::ControlPlace::kAnyNode;
  facts.nodes = {{.name = "node-a", .known = true, .ready = true},
                 {.name = "node-b", .known = true, .ready = true}};
  facts.capacity = drivers::Capacity{.total_bytes = int64_t{10} << 30, .available_bytes = int64_t{6} << 30};
  return facts;
}

const Condition& condition(const BackendVerdict& verdict, std::string_view type) {
  for (const Condition& condition : verdict.conditions) {
    if (condition.type == type) return condition;
  }
  static const Condition none;
  return none;
}

struct Case {
  std::string_view name;
  void (*change)(BackendFacts&);
  std::string_view type, status, reason, message;  // one condition that tells the case
  std::string_view ready_reason;
  bool creates;  // volumes can be made
};

const Case kCases[] = {
    {"all is well", [](BackendFacts&) {}, "Reachable", "True", "Reachable", "2 nodes", "Ready", true},
    {"the spec is wrong",
     [](BackendFacts& facts) {
       facts.spec = absl::InvalidArgumentError("spec.image.directory: must be an absolute path");
     },
     "Ready", "False", "InvalidSpec", "spec.image.directory", "InvalidSpec", false},
    {"one node lacks the share: named, and the others go on",
     [](BackendFacts& facts) {
       facts.nodes[1] = {"node-b", true, false, "no marker in /srv/share"};
     },
     "Reachable", "False", "NodesLackStorage", "node-b: no marker in /srv/share", "Ready", true},
    {"one node lacks the share: degraded",
     [](BackendFacts& facts) {
       facts.nodes[1] = {"node-b", true, false, "no marker in /srv/share"};
     },
     "Degraded", "True", "NodesLackStorage", "node-b", "Ready", true},
    {"all nodes lack the share",
     [](BackendFacts& facts) {
       for (auto& node : facts.nodes) node = {node.name, true, false, "no such directory"};
     },
     "Ready", "False", "NodesLackStorage", "node-a: no such directory; node-b: no such directory",
     "NodesLackStorage", false},
    {"no agent has tried yet", [](BackendFacts& facts) { facts.nodes.clear(); }, "Reachable", "Unknown",
     "NoNodeYet", "agent", "NoNodeYet", false},
    {"the probe fails",
     [](BackendFacts& facts) { facts.probe = absl::FailedPreconditionError("not writable"); }, "Reachable",
     "False", "ProbeFailed", "not writable", "ProbeFailed", false},
    {"the Secret is missing",
     [](BackendFacts& facts) {
       facts.needs_credentials = true;
       facts.credentials = absl::NotFoundError("spec.credentialsSecret: Secret s cannot be read");
     },
     "CredentialsValid", "False", "InvalidCredentials", "spec.credentialsSecret", "InvalidCredentials",
     false},
    {"a changed Secret is wrong and the old one goes on",
     [](BackendFacts& facts) {
       facts.needs_credentials = facts.credentials_in_use = true;
       facts.credentials = absl::UnauthenticatedError("Secret s is not accepted");
     },
     "CredentialsValid", "False", "InvalidCredentials", "The earlier credentials stay in use", "Ready", true},
    {"a changed Secret is wrong: degraded",
     [](BackendFacts& facts) {
       facts.needs_credentials = facts.credentials_in_use = true;
       facts.credentials = absl::UnauthenticatedError("Secret s is not accepted");
     },
     "Degraded", "True", "InvalidCredentials", "Secret s", "Ready", true},
    {"a changed Secret cannot be judged",
     [](BackendFacts& facts) {
       facts.needs_credentials = facts.credentials_in_use = true;
       facts.credentials = absl::UnavailableError("Secret s changed");
     },
     "CredentialsValid", "Unknown", "NotValidated", "Secret s changed", "Ready", true},
    {"another cluster of our id",
     [](BackendFacts& facts) { facts.cluster = absl::FailedPreconditionError("them"); }, "Degraded", "True",
     "ClusterIdentity", "them", "Ready", true},
    {"somebody fights over a class",
     [](BackendFacts& facts) { facts.contested = "StorageClass fast is changed"; }, "Degraded", "True",
     "Contested", "StorageClass fast", "Ready", true},
    {"a foreign class of that name does not stop the others",
     [](BackendFacts& facts) { facts.classes = absl::AlreadyExistsError("StorageClass \"fast\" exists"); },
     "Ready", "False", "ClassConflict", "fast", "ClassConflict", true},
    {"paused", [](BackendFacts& facts) { facts.paused = true; }, "Ready", "False", "Paused", "spec.paused",
     "Paused", false},
    {"being deleted, held by volumes",
     [](BackendFacts& facts) {
       facts.deleting = true;
       facts.deletion_message = "Deletion waits: 3 PersistentVolumes";
     },
     "Ready", "False", "Deleting", "3 PersistentVolumes", "Deleting", false},
    {"full", [](BackendFacts& facts) { facts.capacity->available_bytes = 0; }, "CapacityAvailable", "False",
     "Full", "delete volumes", "Ready", true},
    {"capacity not known",
     [](BackendFacts& facts) { facts.capacity_status = absl::UnavailableError("timed out"); },
     "CapacityAvailable", "Unknown", "NotKnown", "timed out", "Ready", true},
};

TEST(BackendDecision, EachSituationHasItsConditions) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    BackendFacts facts = good_share();
    c.change(facts);
    const BackendVerdict verdict = decide(facts);
    EXPECT_EQ(condition(verdict, c.type).status, c.status);
    EXPECT_EQ(condition(verdict, c.type).reason, c.reason);
    EXPECT_THAT(condition(verdict, c.type).message, HasSubstr(std::string(c.message)));
    EXPECT_EQ(condition(verdict, "Ready").reason, c.ready_reason);
    EXPECT_EQ(verdict.ready.ok(), c.creates) << verdict.ready;
    EXPECT_EQ(verdict.conditions.size(), 5u);
  }
}

TEST(ClusterIdentity, OurOwnAndThoseKnownToBeGoneAreNoConflict) {
  EXPECT_TRUE(judge_cluster("us", "prod", {"us", "", "us"}, "", "share").ok());
  EXPECT_TRUE(judge_cluster("us", "prod", {"us", "them"}, "them", "share").ok());
  EXPECT_TRUE(judge_cluster("us", "prod", {"a", "b"}, "b, a", "share").ok());
}

TEST(ClusterIdentity, AnotherOneIsNamedWithTheCommandThatConfirms) {
  const absl::Status status = judge_cluster("us", "prod", {"us", "them", "gone", "them"}, "gone", "share");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("(UID them) of the same clusterID \"prod\""));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("kubectl annotate --overwrite sb share collage.storage/cluster-is-gone=gone,them"));
}

TEST(BackendDecision, ATransitionTimeChangesOnlyWithTheStatus) {
  const BackendVerdict good = decide(good_share());
  const Json first = conditions_json(good.conditions, nullptr, 1, "2026-01-01T00:00:00Z");
  const Json again = conditions_json(good.conditions, &first, 1, "2026-01-02T00:00:00Z");
  EXPECT_EQ(first, again) << "the same verdict gives the same bytes, so nothing is written";

  BackendFacts worse = good_share();
  worse.probe = absl::UnavailableError("gone");
  const Json changed = conditions_json(decide(worse).conditions, &first, 2, "2026-01-03T00:00:00Z");
  EXPECT_EQ(base::get_string(changed, "/0/lastTransitionTime"), "2026-01-03T00:00:00Z");
  EXPECT_EQ(base::get_string(changed, "/1/lastTransitionTime"), "2026-01-01T00:00:00Z")
      << "CredentialsValid stays True";
  EXPECT_EQ(base::get_int(changed, "/0/observedGeneration"), 2);
}

}  // namespace
}  // namespace collage::reconcile
