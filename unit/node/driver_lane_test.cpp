#include "operator/node/driver_lane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <latch>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

namespace collage::node {
namespace {

using base::Context;
using base::Json;
using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kShort = milliseconds(30);
constexpr auto kLong = std::chrono::seconds(20);

// A call that hangs, whatever its context says, until it is let go.
class Hang {
 public:
  DriverLane::Work work() {
    return [latches = latches_](const Context&) -> absl::StatusOr<Json> {
      latches->begun.count_down();
      latches->end.wait();
      return Json("late");
    };
  }
  void wait_begun() { latches_->begun.wait(); }
  void end() { latches_->end.count_down(); }

 private:
  struct Latches {
    std::latch begun{1}, end{1};
  };
  std::shared_ptr<Latches> latches_ = std::make_shared<Latches>();  // the call may outlive the test
};

absl::StatusOr<Json> answer(const Context&) {
  return Json("answer");
}

DriverLane a_lane(size_t at_once = 8) {
  return DriverLane({.where = "backend fast on node node-a", .at_once = at_once, .grace = kShort});
}

// Until what was left behind came back.
bool comes_free(const DriverLane& lane) {
  for (int i = 0; i < 2000 && !lane.stuck().empty(); ++i) std::this_thread::sleep_for(milliseconds(5));
  return lane.stuck().empty();
}

TEST(DriverLane, AnswersWhatTheCallAnswers) {
  DriverLane lane = a_lane();
  EXPECT_EQ(*lane.run({}, "find v1", "", answer), Json("answer"));
  const auto refused = lane.run({}, "find v1", "", [](const Context&) -> absl::StatusOr<Json> {
    return absl::NotFoundError("no volume v1");
  });
  EXPECT_EQ(refused.status(), absl::NotFoundError("no volume v1"));
}

TEST(DriverLane, ACallThatHangsIsLeftBehindAndTheNextIsAnsweredAtOnce) {
  DriverLane lane = a_lane();
  Hang hang;
  const auto late = lane.run(Context().with_timeout(kShort), "create v1", "v1", hang.work());
  EXPECT_EQ(late.status().code(), absl::StatusCode::kUnavailable) << "not final: it may still be under way";
  EXPECT_THAT(std::string(late.status().message()),
              AllOf(HasSubstr("backend fast on node node-a"), HasSubstr("create v1")));
  bool ran = false;
  const auto next = lane.run({}, "find v2", "", [&](const Context&) -> absl::StatusOr<Json> {
    ran = true;
    return Json();
  });
  EXPECT_EQ(next.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(ran);
  hang.end();
  ASSERT_TRUE(comes_free(lane));
  EXPECT_TRUE(lane.run({}, "find v2", "", answer).ok());
}

TEST(DriverLane, OneThatHangsFreesThoseThatWaitForIt) {
  DriverLane lane = a_lane(1);
  Hang hang;
  absl::Status waited;
  std::thread first([&] {
    EXPECT_FALSE(lane.run(Context().with_timeout(milliseconds(200)), "probe", "", hang.work()).ok());
  });
  hang.wait_begun();
  std::thread second(
      [&] { waited = lane.run(Context().with_timeout(kLong), "find v1", "", answer).status(); });
  first.join();
  second.join();
  EXPECT_EQ(waited.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(waited.message()), HasSubstr("probe"));
  hang.end();
  EXPECT_TRUE(comes_free(lane));
}

TEST(DriverLane, NoTwoCallsChangeOneVolume) {
  DriverLane lane = a_lane();
  Hang hang;
  std::thread first(
      [&] { EXPECT_TRUE(lane.run(Context().with_timeout(kLong), "create v1", "v1", hang.work()).ok()); });
  hang.wait_begun();
  EXPECT_EQ(lane.run(Context().with_timeout(kShort), "remove v1", "v1", answer).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_TRUE(lane.run({}, "remove v2", "v2", answer).ok());
  hang.end();
  first.join();
  EXPECT_TRUE(lane.run({}, "remove v1", "v1", answer).ok());
}

TEST(DriverLane, AStopDoesNotWaitForACallThatHangs) {
  auto lane = std::make_unique<DriverLane>(a_lane());
  Hang hang;
  std::stop_source stop;
  std::thread caller(
      [&] { EXPECT_FALSE(lane->run(Context(stop.get_token()), "probe", "", hang.work()).ok()); });
  hang.wait_begun();
  stop.request_stop();
  caller.join();
  lane.reset();  // what was left behind outlives it
  hang.end();
}

}  // namespace
}  // namespace collage::node
