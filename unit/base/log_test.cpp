#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/status/status.h"
#include "base/json.h"
#include "unit/testing/fake_clock.h"

namespace collage::base::log {
namespace {

using ::testing::ElementsAre;

std::mutex mutex;
std::vector<std::string> lines;

class Log : public ::testing::Test {
 protected:
  void SetUp() override {
    lines.clear();
    set_sink([](std::string_view line) {
      std::lock_guard lock(mutex);
      lines.emplace_back(line);
    });
  }
  void TearDown() override {
    set_sink(nullptr);
    configure(Format::kText, Level::kInfo);
  }

  const testing::FakeClock clock_;
  const Context context_{{}, clock_};
};

TEST_F(Log, TextIsForAPerson) {
  info(context_.with_field("reconcile", "7f"), "volume created", {{"volume", "fast/x"}, {"bytes", 42}});
  warning(context_, "late");
  error(context_, "failed", {{"error", absl::NotFoundError("no \"x\"")}});
  EXPECT_THAT(lines,
              ElementsAre("2026-01-01T00:00:00Z INFO  volume created reconcile=7f volume=fast/x bytes=42",
                          "2026-01-01T00:00:00Z WARN  late",
                          "2026-01-01T00:00:00Z ERROR failed error=\"NOT_FOUND: no \\\"x\\\"\""));
}

TEST_F(Log, ALineStaysALine) {
  info(context_, "x",
       {{"a", "1\n2026-01-01T00:00:00Z INFO  forged"}, {"b", ""}, {"c", "k=v"}, {"d", "\x1b[31m\xff"}});
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0],
            "2026-01-01T00:00:00Z INFO  x a=\"1\\n2026-01-01T00:00:00Z INFO  forged\" b=\"\" c=\"k=v\" "
            "d=\"\\u001b[31m\xef\xbf\xbd\"");
}

TEST_F(Log, JsonIsOneObjectALine) {
  configure(Format::kJson, Level::kDebug);
  debug(context_.with_field("reconcile", "7f"), "volume \"created\"",
        {{"bytes", 42},
         {"ratio", 0.5},
         {"dry", false},
         {"text", "42"},
         {"nan", std::numeric_limits<double>::quiet_NaN()},
         {"infinite", std::numeric_limits<double>::infinity()}});
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(
      lines[0],
      "{\"time\":\"2026-01-01T00:00:00.000000Z\",\"level\":\"debug\",\"message\":\"volume \\\"created\\\"\","
      "\"reconcile\":\"7f\",\"bytes\":42,\"ratio\":0.500000,\"dry\":false,\"text\":\"42\",\"nan\":\"nan\","
      "\"infinite\":\"inf\"}");
  EXPECT_TRUE(parse_json(lines[0]).ok());
}

TEST_F(Log, LevelsBelowTheLeastAreNotWritten) {
  debug(context_, "no");
  info(context_, "yes");
  configure(Format::kText, Level::kError);
  warning(context_, "no");
  error(context_, "yes");
  EXPECT_EQ(lines.size(), 2u);
}

TEST_F(Log, ASecretIsNeverShown) {
  const Secret secret("hunter2");
  configure(Format::kText, Level::kInfo);
  info(context_, "login", {{"password", secret}});
  configure(Format::kJson, Level::kInfo);
  info(context_, "login", {{"password", secret}});
  std::ostringstream out;
  out << secret << ::testing::PrintToString(Secrets{{"a", secret}});
  lines.push_back(out.str());
  for (const std::string& line : lines) {
    EXPECT_THAT(line, ::testing::HasSubstr("***"));
    EXPECT_THAT(line, ::testing::Not(::testing::HasSubstr("hunter2")));
  }
  EXPECT_EQ(secret.reveal(), "hunter2");
}

TEST_F(Log, AFieldOfTheCallReplacesTheContexts) {
  info(context_.with_field("volume", "old"), "x", {{"volume", "new"}});
  EXPECT_THAT(lines, ElementsAre("2026-01-01T00:00:00Z INFO  x volume=new"));
}

TEST(Seldom, TellsTheFirstTheChangesAndEveryHalfMinute) {
  testing::FakeClock clock;
  const Context context({}, clock);
  Seldom seldom;
  EXPECT_TRUE(seldom.tell(context, "down"));
  clock.advance(std::chrono::seconds(29));
  EXPECT_FALSE(seldom.tell(context, "down"));
  EXPECT_TRUE(seldom.tell(context, "slow"));
  EXPECT_TRUE(seldom.tell(context, "down"));
  EXPECT_FALSE(seldom.tell(context, "down"));
  clock.advance(std::chrono::seconds(30));
  EXPECT_TRUE(seldom.tell(context, "down"));
  seldom.forget();
  EXPECT_TRUE(seldom.tell(context, "down"));
}

}  // namespace
}  // namespace collage::base::log
