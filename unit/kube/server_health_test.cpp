// What an API server that does not answer as it should costs a client, and what is said about it.
#include "operator/kube/server_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "operator/kube/informer.h"
#include "unit/testing/builders.h"
#include "unit/testing/captured_log.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_clock.h"

namespace collage::kube {
namespace {

using base::Json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using namespace collage::testing;  // NOLINT: builders read as words

constexpr char kTrouble[] = "the API server does not answer as it should";
constexpr char kGood[] = "the API server answers again";

class ServerHealthTest : public ::testing::Test {
 protected:
  CapturedLog log_;
  FakeApiServer server_;
  std::unique_ptr<Client> client_ = server_.client();
  base::Context context_;
};

TEST_F(ServerHealthTest, EachFaultIsNamedOnceAndItsEndToo) {
  struct Case {
    Fault fault;
    const char* problem;
  };
  const Case cases[] = {
      {Fault::drop_before(), "unreachable"},
      {Fault::half_body(), "unreachable"},
      {Fault::wait(seconds(20)), "silent"},
      {Fault::answer(500, "InternalError"), "failing"},
      {Fault::answer(504, "Timeout"), "failing"},
      {Fault::answer(429, "TooManyRequests", {{"Retry-After", "0"}}), "overloaded"},
      {Fault::answer(401, "Unauthorized"), "untrusted"},
      {Fault::half_json(), "garbled"},
  };
  server_.put(a_volume("v"));
  for (const Case& c : cases) {
    client_ = server_.client();
    const std::string problem = std::string("problem=") + c.problem;
    const size_t before = log_.with({kTrouble, problem}).size();
    const size_t good = log_.with({kGood}).size();
    server_.on_request([&](const ApiRequest&) { return c.fault; });
    const auto patience = c.fault.delay.count() > 0 ? milliseconds(200) : seconds(20);
    for (int i = 0; i < 2; ++i) {
      EXPECT_FALSE(client_->get(context_.with_timeout(patience), kPersistentVolumes, {"", "v"}).ok());
    }
    const auto lines = log_.with({kTrouble, problem, server_.config().server, "get persistentvolumes v"});
    ASSERT_THAT(lines, SizeIs(before + 1)) << c.problem << ": once, however many calls it hits";
    const absl::Status health = client_->server_health();
    EXPECT_EQ(health.code(), absl::StatusCode::kUnavailable) << c.problem;
    EXPECT_THAT(std::string(health.message()), HasSubstr(server_.config().server));
    EXPECT_THAT(std::string(health.message()), HasSubstr(c.problem));
    server_.clear_faults();
    EXPECT_TRUE(client_->get(context_, kPersistentVolumes, {"", "v"}).ok()) << c.problem;
    EXPECT_TRUE(client_->server_health().ok()) << c.problem;
    EXPECT_THAT(log_.with({kGood, server_.config().server}), SizeIs(good + 1)) << c.problem;
  }
}

// Answers all of them: a caller's mistake or a race with another is no trouble of the server's.
TEST_F(ServerHealthTest, AnAnswerIsAnAnswer) {
  for (const int status : {400, 403, 404, 409, 410, 422}) {
    server_.fail_next("get", "persistentvolumes", Fault::answer(status));
    EXPECT_FALSE(client_->get(context_, kPersistentVolumes, {"", "v"}).ok());
    EXPECT_TRUE(client_->server_health().ok()) << status;
  }
  std::stop_source stop;
  stop.request_stop();
  EXPECT_FALSE(client_->get(base::Context(stop.get_token()), kPersistentVolumes, {"", "v"}).ok());
  EXPECT_FALSE(client_->get(context_.with_timeout(milliseconds(0)), kPersistentVolumes, {"", "v"}).ok());
  EXPECT_TRUE(client_->server_health().ok()) << "who gave up before asking knows nothing";
  EXPECT_THAT(log_.with({kTrouble}), SizeIs(0));
}

TEST(ServerHealth, AServerThatComesAndGoesIsToldOfEveryHalfMinute) {
  CapturedLog log;
  FakeClock clock;
  const base::Context context({}, clock);
  detail::ServerHealth health("https://server");
  for (int i = 0; i < 120; ++i) {
    health.bad(context, detail::Problem::kFailing, "get x", absl::UnavailableError("why"));
    health.good(context);
    clock.advance(milliseconds(500));
  }
  EXPECT_THAT(log.with({kTrouble}), SizeIs(2));
  EXPECT_THAT(log.with({kGood}), SizeIs(2));
  health.bad(context, detail::Problem::kUnreachable, "get x", absl::UnavailableError("why"));
  EXPECT_THAT(log.with({kTrouble, "unreachable"}), SizeIs(1)) << "another problem is told at once";
}

// ---- Informers

ReflectorOptions quick() {
  ReflectorOptions options;
  options.backoff_initial = milliseconds(5);
  options.backoff_max = milliseconds(50);
  options.idle_timeout = milliseconds(400);
  return options;
}

class InformerFaults : public ServerHealthTest {
 protected:
  ~InformerFaults() override {
    stop_.request_stop();
    informer_.stop();
  }
  bool begin() {
    informer_.start(context_);
    return informer_.wait_synced(context_.with_timeout(seconds(10))).ok();
  }
  bool sees(const std::string& name) {
    return server_.wait_until([&] { return informer_.get(name) != nullptr; });
  }
  std::stop_source stop_;
  base::Context context_{stop_.get_token()};
  Informer<Volume> informer_{*client_, quick()};
};

TEST_F(InformerFaults, HalfAListIsReadAgain) {
  server_.put(a_volume("a"));
  server_.fail_next("list", "persistentvolumes", Fault::half_json(), 3);
  ASSERT_TRUE(begin());
  EXPECT_EQ(informer_.size(), 1u);
  EXPECT_THAT(log_.with({kTrouble, "problem=garbled", "list persistentvolumes"}), SizeIs(1));
}

TEST_F(InformerFaults, HalfAnEventsJsonIsReadAgain) {
  server_.put(a_volume("a"));
  ASSERT_TRUE(begin());
  server_.fail_next("watch", "persistentvolumes", Fault::half_json(), 3);
  server_.break_watches();
  server_.put(a_volume("b"));
  ASSERT_TRUE(sees("b"));
  EXPECT_EQ(server_.count("list", "persistentvolumes"), 1) << "resumed, not listed";
  EXPECT_THAT(log_.with({kTrouble, "problem=garbled", "watch persistentvolumes"}), SizeIs(1));
}

TEST_F(InformerFaults, AWatchThatGoesSilentIsNoticedAndResumed) {
  ASSERT_TRUE(begin());
  ASSERT_TRUE(server_.wait_until([&] { return server_.open_watches("persistentvolumes") == 1; }));
  server_.stall_watches();
  server_.put(a_volume("b"));
  ASSERT_TRUE(sees("b"));
  EXPECT_EQ(server_.count("list", "persistentvolumes"), 1) << "resumed, not listed";
  EXPECT_THAT(log_.with({"watch was silent for too long, resuming", "resource=persistentvolumes"}),
              SizeIs(::testing::Ge(1)));
}

TEST_F(InformerFaults, AWatchThatIsNotEvenAnsweredIsGivenUp) {
  ASSERT_TRUE(begin());
  ASSERT_TRUE(server_.wait_until([&] { return server_.open_watches("persistentvolumes") == 1; }));
  server_.fail_next("watch", "persistentvolumes", Fault::wait(seconds(60)), 2);
  server_.break_watches();
  server_.put(a_volume("b"));
  ASSERT_TRUE(sees("b"));
  EXPECT_THAT(log_.with({kTrouble, "problem=silent", "watch persistentvolumes"}), SizeIs(1));
}

// A server that is away for long: one line each, not one a try.
TEST_F(InformerFaults, ALongOutageIsNoFloodOfLines) {
  ASSERT_TRUE(begin());
  server_.on_request([](const ApiRequest&) { return Fault::drop_before(); });
  server_.break_watches();
  ASSERT_TRUE(server_.wait_until([&] { return server_.count("watch", "persistentvolumes") >= 30; }));
  EXPECT_THAT(log_.with({kTrouble}), SizeIs(1));
  EXPECT_THAT(log_.with({"watch broke"}), SizeIs(::testing::Le(2)));
  server_.clear_faults();
  server_.put(a_volume("b"));
  ASSERT_TRUE(sees("b"));
  EXPECT_THAT(log_.with({kGood}), SizeIs(1));
}

}  // namespace
}  // namespace collage::kube
