#include "operator/kube/lease_view.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <vector>

namespace collage::kube::detail {
namespace {

using base::Json;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

// The API server's part: one Lease with a version, changed only by who knows the version.
struct Server {
  std::optional<Json> lease;
  uint64_t version = 0;

  bool write(Json next) {
    const std::string known = base::get_string(next, "/metadata/resourceVersion");
    const bool fits = lease ? known == std::to_string(version) : known.empty();
    if (!fits) return false;
    next["metadata"]["resourceVersion"] = std::to_string(++version);
    lease = std::move(next);
    return true;
  }
};

// What is on its way between a candidate and the server.
struct Message {
  nanoseconds arrives;   // at the server
  nanoseconds answered;  // at the candidate
  bool answer_lost;
  bool write;
  Json lease;        // of a write
  nanoseconds sent;  // by the candidate's clock
  bool applied = false, done = false;
  std::optional<Json> seen;
};

// A candidate that may be stopped for a while, whose clock has an offset and its own speed, and whose
// messages are late or lost.
class Candidate {
 public:
  Candidate(std::string name, nanoseconds offset, double speed)
      : view_(name, seconds(15), seconds(10)), name_(std::move(name)), offset_(offset), speed_(speed) {}

  nanoseconds clock(nanoseconds now) const {
    return offset_ + nanoseconds(static_cast<int64_t>(static_cast<double>(now.count()) * speed_));
  }
  bool holds(nanoseconds now) const { return view_.holds_for(clock(now)).ok(); }

  void step(nanoseconds now, Server& server, std::mt19937_64& random) {
    deliver(now, server);
    if (now < stopped_until_) return;
    read_answers(now);
    auto chance = [&](double p) { return std::uniform_real_distribution<>(0, 1)(random) < p; };
    auto between = [&](int low, int high) {
      return milliseconds(std::uniform_int_distribution<>(low, high)(random));
    };
    if (chance(0.002)) {
      stopped_until_ = now + between(1000, 60000);
      return;
    }
    if (now < next_) return;
    next_ = now + between(200, 4000);
    const bool slow = chance(0.1);
    Message message{
        now + between(0, slow ? 20000 : 50), nanoseconds(0), chance(0.1), false, Json(), clock(now)};
    message.answered = message.arrives + between(0, slow ? 20000 : 50);
    if (chance(0.05)) return;  // lost before it arrived
    const bool holding = view_.holds_for(clock(now)).ok();
    message.write = looked_ &&
                    (holding || view_.observed_as_holder() || view_.wait(clock(now)) == nanoseconds(0)) &&
                    chance(0.7);
    if (message.write) {
      const bool give_up = holding && chance(0.03);
      if (give_up) view_.lost();
      message.lease = give_up ? view_.give_up({}) : view_.claim("ns", name_, {});
      gave_up_ = give_up;
    }
    messages_.push_back(std::move(message));
  }

 private:
  void deliver(nanoseconds now, Server& server) {
    for (Message& each : messages_) {
      if (each.applied || each.arrives > now) continue;
      each.applied = true;
      if (each.write) {
        if (server.write(each.lease)) each.seen = server.lease;
      } else {
        each.seen = server.lease;
      }
    }
  }

  void read_answers(nanoseconds now) {
    for (Message& each : messages_) {
      if (each.done || !each.applied || each.answered > now) continue;
      each.done = true;
      if (each.answer_lost) continue;
      if (!each.write) {
        looked_ = true;
        view_.observe(each.seen ? &*each.seen : nullptr, clock(now));
      } else if (each.seen && base::get_string(*each.seen, "/spec/holderIdentity") == name_) {
        if (!gave_up_) view_.held(*each.seen, each.sent);
      }
    }
    std::erase_if(messages_, [](const Message& each) { return each.done; });
  }

  LeaseView view_;
  const std::string name_;
  const nanoseconds offset_;
  const double speed_;
  std::vector<Message> messages_;
  nanoseconds next_{0};
  nanoseconds stopped_until_{0};
  bool looked_ = false;
  bool gave_up_ = false;
};

// Three candidates with clocks apart, stops of up to a minute, answers that come late, twenty seconds late or
// never: no two ever hold the lease at one moment, and somebody holds it most of the time.
TEST(LeaseView, TwoNeverHoldAtOnce) {
  int64_t held = 0, total = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    std::mt19937_64 random(seed);
    Server server;
    std::vector<Candidate> candidates;
    candidates.emplace_back("a", seconds(5), 1.0);
    candidates.emplace_back("b", seconds(100000), 1.001);
    candidates.emplace_back("c", seconds(0), 0.999);
    for (nanoseconds now{0}; now < std::chrono::minutes(20); now += milliseconds(100)) {
      int holders = 0;
      for (Candidate& each : candidates) {
        each.step(now, server, random);
      }
      for (const Candidate& each : candidates) holders += each.holds(now) ? 1 : 0;
      ASSERT_LE(holders, 1) << "seed " << seed << " at " << now.count();
      held += holders;
      ++total;
    }
  }
  EXPECT_GT(held * 2, total);
}

Json lease(const std::string& holder, const std::string& version, int duration = 15) {
  return {{"metadata", {{"resourceVersion", version}}},
          {"spec", {{"holderIdentity", holder}, {"leaseDurationSeconds", duration}}}};
}

TEST(LeaseView, WaitsAWholeDurationFromWhatItSawItself) {
  LeaseView view("b", seconds(15), seconds(10));
  const Json held = lease("a", "1", 20);
  view.observe(&held, seconds(100));
  EXPECT_EQ(view.wait(seconds(100)), seconds(20)) << "the holder's duration, not ours";
  view.observe(&held, seconds(115));
  EXPECT_EQ(view.wait(seconds(115)), seconds(5)) << "the same record is no sign of life";
  const Json renewed = lease("a", "2", 20);
  view.observe(&renewed, seconds(119));
  EXPECT_EQ(view.wait(seconds(119)), seconds(20));
  EXPECT_EQ(view.wait(seconds(139)), seconds(0));
}

TEST(LeaseView, AReleasedLeaseIsFree) {
  LeaseView view("b", seconds(15), seconds(10));
  const Json held = lease("a", "1");
  view.observe(&held, seconds(100));
  const Json released = lease("", "2", 1);
  view.observe(&released, seconds(101));
  EXPECT_EQ(view.wait(seconds(101)), seconds(0));
}

TEST(LeaseView, ADeletedLeaseIsFreeOnlyWhenItsHolderIsOver) {
  LeaseView view("b", seconds(15), seconds(10));
  const Json held = lease("a", "1");
  view.observe(&held, seconds(100));
  view.observe(nullptr, seconds(101));
  EXPECT_EQ(view.wait(seconds(101)), seconds(15)) << "it may have been renewed a moment before";
  view.observe(nullptr, seconds(110));
  EXPECT_EQ(view.wait(seconds(110)), seconds(6)) << "counted from the first time";
  view.observe(nullptr, seconds(116));
  EXPECT_EQ(view.wait(seconds(116)), seconds(0));
}

// It was not looked at for long, as its watch was broken.
TEST(LeaseView, ADeletedLeaseIsNotFreeSinceAnOldRecordRanOut) {
  LeaseView view("b", seconds(15), seconds(10));
  const Json held = lease("a", "1");
  view.observe(&held, seconds(100));
  view.observe(nullptr, seconds(200));
  EXPECT_EQ(view.wait(seconds(200)), seconds(15));
}

TEST(LeaseView, OneThatWasNeverSeenIsFreeAfterADuration) {
  LeaseView view("b", seconds(15), seconds(10));
  view.observe(nullptr, seconds(100));
  EXPECT_EQ(view.wait(seconds(100)), seconds(15));
  view.observe(nullptr, seconds(115));
  EXPECT_EQ(view.wait(seconds(115)), seconds(0));
}

TEST(LeaseView, OneThatIsMissingWhereNobodyLedIsFree) {
  LeaseView view("b", seconds(15), seconds(10));
  view.nobody_led();
  view.observe(nullptr, seconds(100));
  EXPECT_EQ(view.wait(seconds(100)), seconds(0));
  const Json held = lease("a", "1");  // another was faster
  view.observe(&held, seconds(101));
  EXPECT_EQ(view.wait(seconds(101)), seconds(15));
  view.observe(nullptr, seconds(102));
  EXPECT_EQ(view.wait(seconds(102)), seconds(15)) << "by now somebody led";
}

TEST(LeaseView, TheFenceCountsFromTheSending) {
  LeaseView view("a", seconds(15), seconds(10));
  view.held(lease("a", "1"), seconds(100));
  EXPECT_EQ(*view.holds_for(seconds(104)), seconds(6));
  EXPECT_FALSE(view.holds_for(seconds(110)).ok());
  view.held(lease("a", "2"), seconds(105));
  EXPECT_EQ(*view.holds_for(seconds(110)), seconds(5));
}

TEST(LeaseView, ARecordOfAnyShapeIsRead) {
  LeaseView view("b", seconds(15), seconds(10));
  for (const char* text :
       {"{}", "[]", "7", R"({"spec":7})", R"({"spec":{"holderIdentity":null,"leaseDurationSeconds":"x"}})"}) {
    const Json odd = *base::parse_json(text);
    view.observe(&odd, seconds(1));
    EXPECT_EQ(view.wait(seconds(1)), seconds(0)) << text;
  }
}

}  // namespace
}  // namespace collage::kube::detail
