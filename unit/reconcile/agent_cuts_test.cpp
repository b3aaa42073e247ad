// A node's agent that is killed before and after each call of its driver and each write of its answer, with
// the call still wanted and with the call given up meanwhile; and one whose API server does not answer as it
// should.
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "drivers/codec.h"
#include "operator/kube/events.h"
#include "operator/reconcile/node_agent.h"
#include "operator/reconcile/storage_node_controller.h"
#include "operator/reconcile/storage_node_operations.h"
#include "operator/reconcile/world.h"
#include "unit/reconcile/stand_in_agent.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_driver.h"

namespace collage::reconcile {
namespace {

using base::Json;
using drivers::Verb;
using testing::ApiRequest;
using testing::Fault;

constexpr char kVolume[] = "pvc-1";
constexpr char kId[] = "vol-pvc-1";
constexpr char kNode[] = "node-a";

enum class At { kBeforeDriver, kAfterDriver, kBeforeAnswer, kAfterAnswer };
enum class Meanwhile { kWanted, kGivenUp };

std::string to_string(At at) {
  switch (at) {
    case At::kBeforeDriver:
      return "BeforeDriver";
    case At::kAfterDriver:
      return "AfterDriver";
    case At::kBeforeAnswer:
      return "BeforeAnswer";
    case At::kAfterAnswer:
      return "AfterAnswer";
  }
  return "";
}

kube::ReflectorOptions quick() {
  kube::ReflectorOptions options;
  options.backoff_initial = std::chrono::milliseconds(10);
  options.backoff_max = std::chrono::milliseconds(200);
  options.idle_timeout = std::chrono::milliseconds(1500);
  return options;
}

// The agent's process: once dead, no write of it reaches the API server.
struct Process final : kube::Fence {
  Process(testing::FakeApiServer& server, testing::FakeDriver& driver,
          const std::vector<drivers::Kind>& kinds)
      : client(server.client(this)), agent(driver), link(*client, agent, kinds, kNode, "0.1.0", quick()) {
    link.start(base::Context(stop.get_token()));
  }
  ~Process() override {
    stop.request_stop();
    link.stop();
  }
  absl::StatusOr<std::chrono::nanoseconds> holds_for() const override {
    if (dead) return absl::FailedPreconditionError("killed");
    return std::chrono::hours(1);
  }

  std::atomic<bool> dead = false;
  std::stop_source stop;
  std::unique_ptr<kube::Client> client;
  testing::StandInAgent agent;
  NodeAgent link;
};

// An operator and the agent of one node, which can be killed.
class AgentTest : public ::testing::Test {
 protected:
  AgentTest() : client_(server_.client()), events_(*client_, "test", "test") {
    server_.put(testing::a_node(kNode));
    server_.put(testing::a_backend("share").kind("fake", {{"size", 1}}));
    server_.on_request([this](const ApiRequest& request) { return on_request(request); });
    driver_.before([this](const base::Context&, Verb verb, const std::string&) {
      return dies_at(At::kBeforeDriver, verb);
    });
    driver_.after([this](const base::Context&, Verb verb, const std::string&) {
      return dies_at(At::kAfterDriver, verb);
    });
    world_.start(context_);
    nodes_.start(context_);
    operations_.start(context_);
    restart();
  }
  ~AgentTest() override {
    process_.reset();
    operations_.stop();
    nodes_.stop();
    world_.stop();
  }

  // The agent's process dies at the next such moment.
  void arm(Verb verb, At at) {
    verb_ = verb;
    at_ = at;
    armed_ = true;
  }
  bool takes(At at) { return at_ == at && armed_.exchange(false); }
  absl::Status dies_at(At at, Verb verb) {
    if (verb != verb_ || !takes(at)) return absl::OkStatus();
    process_->dead = true;
    killed_ = true;
    killed_.notify_all();
    return absl::UnavailableError("killed");
  }
  Fault on_request(const ApiRequest& request) {
    // The answer, not what the agent says of backends and mounts.
    if (request.verb != "patch" || request.subresource != "status" ||
        !absl::StrContains(request.body, "\\\"code\\\""))
      return {};
    const auto die = [this] {
      process_->dead = true;
      killed_ = true;
      killed_.notify_all();
    };
    if (takes(At::kBeforeAnswer)) {
      die();
      return Fault::drop_before();
    }
    if (takes(At::kAfterAnswer)) return Fault::drop_after(die);
    return {};
  }
  void restart() {
    process_.reset();
    process_ = std::make_unique<Process>(server_, driver_, kinds_);
    ASSERT_TRUE(server_.wait_until([&] { return operations_.ready_nodes("share").size() == 1; }));
  }
  absl::StatusOr<Json> run(const base::Context& context, Verb verb) {
    return operations_.run(context, kNode, "share", verb, arguments(verb),
                           engine::NodeOperations::kAnySilence);
  }
  static Json arguments(Verb verb) {
    drivers::CreateRequest request{.name = kVolume, .required_bytes = 1 << 20};
    request.capabilities = {{.fs_type = "ext4"}};
    switch (verb) {
      case Verb::kCreate:
        return drivers::to_json(request);
      case Verb::kAttach:
        return {{"id", kId},
                {"nodeID", "id-a"},
                {"capability", drivers::to_json(request.capabilities.front())},
                {"readOnly", false}};
      case Verb::kDetach:
        return {{"id", kId}, {"nodeID", "id-a"}};
      default:
        return {{"id", kId}};
    }
  }
  // What the call finds.
  void prepare(Verb verb) {
    if (verb == Verb::kCreate) return;
    driver_.put({.id = kId, .name = kVolume, .attached_to = verb == Verb::kDetach ? "id-a" : ""});
  }
  bool done(Verb verb) {
    const auto volumes = driver_.volumes();
    const auto volume = volumes.find(kId);
    switch (verb) {
      case Verb::kCreate:
        return volumes.size() == 1 && volume != volumes.end();
      case Verb::kRemove:
        return volumes.empty();
      case Verb::kAttach:
        return volume != volumes.end() && volume->second.attached_to == "id-a";
      default:
        return volume != volumes.end() && volume->second.attached_to.empty();
    }
  }

  static std::vector<drivers::Kind> kinds() {
    auto kind = testing::fake_kind();
    kind.validate = [](const Json&) { return absl::OkStatus(); };
    return {kind};
  }

  testing::FakeApiServer server_;
  std::unique_ptr<kube::Client> client_;
  kube::EventRecorder events_;
  const std::vector<drivers::Kind> kinds_ = kinds();
  testing::FakeDriver driver_;
  const base::Context context_;
  World world_{*client_, events_, kinds_, "collage-system", quick()};
  StorageNodeController nodes_{world_};
  StorageNodeOperations operations_{world_};
  std::unique_ptr<Process> process_;
  std::atomic<Verb> verb_ = Verb::kProbe;
  std::atomic<At> at_ = At::kBeforeDriver;
  std::atomic<bool> armed_ = false, killed_ = false;
};

using Parameters = std::tuple<Verb, At, Meanwhile>;

class AgentCuts : public AgentTest, public ::testing::WithParamInterface<Parameters> {};

TEST_P(AgentCuts, NothingIsLostAndNothingIsDoneForNobody) {
  const auto [verb, at, meanwhile] = GetParam();
  prepare(verb);
  arm(verb, at);
  std::stop_source caller;
  absl::StatusOr<Json> answer = absl::UnknownError("none");
  std::jthread thread([&, verb = verb] {
    answer = run(base::Context(caller.get_token()).with_timeout(std::chrono::seconds(20)), verb);
  });
  killed_.wait(false);
  if (meanwhile == Meanwhile::kWanted) {
    restart();
    thread.join();
    EXPECT_TRUE(answer.ok()) << answer.status();
    EXPECT_TRUE(done(verb));
    EXPECT_EQ(driver_.calls(verb), at == At::kAfterAnswer ? 1 : 2);
    return;
  }
  caller.request_stop();
  thread.join();
  ASSERT_TRUE(server_.wait_until([&] {
    const Json object = *server_.get(kube::kStorageNodes, kNode);
    const Json* listed = base::find(object, "/spec/operations");
    return listed == nullptr || listed->empty();
  })) << "what nobody waits for is withdrawn";
  const auto before = driver_.calls(verb);
  const auto volumes = driver_.volumes();
  restart();
  ASSERT_TRUE(run(context_.with_timeout(std::chrono::seconds(20)), Verb::kProbe).ok());
  EXPECT_EQ(driver_.calls(verb), before);
  EXPECT_EQ(driver_.volumes().size(), volumes.size());
}

INSTANTIATE_TEST_SUITE_P(
    Every, AgentCuts,
    ::testing::Combine(::testing::Values(Verb::kCreate, Verb::kRemove, Verb::kAttach, Verb::kDetach),
                       ::testing::Values(At::kBeforeDriver, At::kAfterDriver, At::kBeforeAnswer,
                                         At::kAfterAnswer),
                       ::testing::Values(Meanwhile::kWanted, Meanwhile::kGivenUp)),
    [](const auto& info) {
      return absl::StrCat(drivers::to_string(std::get<0>(info.param)), to_string(std::get<1>(info.param)),
                          std::get<2>(info.param) == Meanwhile::kWanted ? "" : "GivenUp");
    });

// What the API server does to an agent, and to the operator that waits for it.
struct Trouble {
  std::string name;
  std::function<void(testing::FakeApiServer&)> make;
};

std::vector<Trouble> all_troubles() {
  const auto write = [](Fault fault, int times = 2) {
    return [fault, times](testing::FakeApiServer& server) {
      server.fail_next("patch", "storagenodes", fault, times);
    };
  };
  return {
      {"Down", [](auto& server) { server.fail_next("", "", Fault::drop_before(), 20); }},
      {"Slow", write(Fault::wait(std::chrono::milliseconds(300)))},
      {"Error500", write(Fault::answer(500, "InternalError"))},
      {"Conflict", write(Fault::answer(409, "Conflict"))},
      {"Overloaded", write(Fault::answer(429, "TooManyRequests", {{"Retry-After", "1"}}))},
      {"LostAnswers", write(Fault::drop_after())},
      {"HalfBodies", write(Fault::half_body())},
      {"HalfJson", write(Fault::half_json())},
      {"HalfEvents",
       [](auto& server) {
         server.fail_next("watch", "storagenodes", Fault::half_json(), 2);
         server.end_watches();
       }},
      {"BrokenWatches", [](auto& server) { server.break_watches(); }},
      {"SilentWatches", [](auto& server) { server.stall_watches(); }},
      {"ExpiredWatches",
       [](auto& server) {
         server.compact();
         server.end_watches();
       }},
  };
}

class AgentTroubles : public AgentTest, public ::testing::WithParamInterface<Trouble> {};

TEST_P(AgentTroubles, AreWaitedForAndNothingIsDoneTwice) {
  GetParam().make(server_);
  const auto answer = run(context_.with_timeout(std::chrono::seconds(20)), Verb::kCreate);
  EXPECT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(done(Verb::kCreate));
  EXPECT_EQ(driver_.calls(Verb::kCreate), 1);
}

INSTANTIATE_TEST_SUITE_P(Every, AgentTroubles, ::testing::ValuesIn(all_troubles()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace collage::reconcile
