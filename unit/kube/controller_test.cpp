#include "operator/kube/controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "base/metrics.h"
#include "unit/testing/fake_clock.h"

namespace collage::kube {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::mutex log_mutex;
std::vector<std::string> log_lines;

void keep_line(std::string_view line) {
  std::lock_guard lock(log_mutex);
  log_lines.emplace_back(line);
}

std::vector<std::string> lines_with(std::string_view text) {
  std::lock_guard lock(log_mutex);
  std::vector<std::string> result;
  for (const std::string& line : log_lines) {
    if (line.find(text) != std::string::npos) result.push_back(line);
  }
  return result;
}

// Counts the reconciles of a key, and answers with the outcomes in turn (the last one again and again).
class Script {
 public:
  explicit Script(std::vector<Outcome> outcomes) : outcomes_(std::move(outcomes)) {}
  Outcome operator()(const std::string&) {
    std::lock_guard lock(mutex_);
    const Outcome outcome = outcomes_[std::min<size_t>(calls_, outcomes_.size() - 1)];
    ++calls_;
    changed_.notify_all();
    return outcome;
  }
  bool wait_for_calls(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds(10), [&] { return calls_ >= count; });
  }
  size_t calls() {
    std::lock_guard lock(mutex_);
    return calls_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Outcome> outcomes_;
  size_t calls_ = 0;
};

class ControllerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    log_lines.clear();
    base::log::set_sink(keep_line);
  }
  void TearDown() override { base::log::set_sink(nullptr); }
  testing::FakeClock clock_;
  std::stop_source stop_;
  base::Context context_{stop_.get_token(), clock_};
};

TEST_F(ControllerTest, DoneIsOver) {
  Script script({Done{}});
  Controller controller(
      "done", 2, [&](const base::Context&, const std::string& key) { return script(key); }, clock_);
  controller.start(context_);
  controller.enqueue("a");
  ASSERT_TRUE(script.wait_for_calls(1));
  controller.stop();
  EXPECT_EQ(script.calls(), 1u);
  EXPECT_EQ(controller.depth(), 0u);
  EXPECT_TRUE(lines_with("reconcile failed").empty());
}

TEST_F(ControllerTest, RequeueAfterComesBackAfterItsDelay) {
  Script script({RequeueAfter{seconds(30)}, Done{}});
  Controller controller(
      "requeue", 1, [&](const base::Context&, const std::string& key) { return script(key); }, clock_);
  controller.start(context_);
  controller.enqueue("a");
  ASSERT_TRUE(script.wait_for_calls(1));
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  clock_.advance(seconds(29));
  EXPECT_EQ(script.calls(), 1u);
  clock_.advance(seconds(1));
  ASSERT_TRUE(script.wait_for_calls(2));
  controller.stop();
}

TEST_F(ControllerTest, RetryBacksOffAndIsLoggedOnceATry) {
  Script script({Retry{absl::UnavailableError("the backend is away")}, Done{}});
  Controller controller(
      "retry", 1, [&](const base::Context&, const std::string& key) { return script(key); }, clock_);
  controller.start(context_);
  controller.enqueue("ns/a");
  ASSERT_TRUE(script.wait_for_calls(1));
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  clock_.advance(seconds(1));
  ASSERT_TRUE(script.wait_for_calls(2));
  controller.stop();
  const auto lines = lines_with("the backend is away");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_THAT(lines[0], ::testing::HasSubstr("controller"));
  EXPECT_THAT(lines[0], ::testing::HasSubstr("ns/a"));
  EXPECT_THAT(lines[0], ::testing::HasSubstr("reconcile="));
}

TEST_F(ControllerTest, TerminalWaitsForAChange) {
  Script script({Terminal{absl::InvalidArgumentError("no such parameter")}, Done{}});
  Controller controller(
      "terminal", 1, [&](const base::Context&, const std::string& key) { return script(key); }, clock_);
  controller.start(context_);
  controller.enqueue("a");
  ASSERT_TRUE(script.wait_for_calls(1));
  clock_.advance(std::chrono::hours(1));
  controller.enqueue("a");
  ASSERT_TRUE(script.wait_for_calls(2));
  controller.stop();
  EXPECT_EQ(script.calls(), 2u);
  EXPECT_EQ(lines_with("no such parameter").size(), 1u);
}

TEST_F(ControllerTest, StopWaitsForTheReconcileUnderWayAndIsSilentAboutIt) {
  std::mutex mutex;
  std::condition_variable changed;
  bool inside = false, finished = false;
  Controller controller(
      "stop", 1,
      [&](const base::Context& context, const std::string&) -> Outcome {
        {
          std::lock_guard lock(mutex);
          inside = true;
          changed.notify_all();
        }
        const absl::Status status = context.sleep_for(std::chrono::hours(1));
        finished = true;
        return Retry{status};
      },
      clock_);
  controller.start(context_);
  controller.enqueue("a");
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, seconds(10), [&] { return inside; }));
  }
  stop_.request_stop();
  controller.stop();
  EXPECT_TRUE(finished);
  EXPECT_TRUE(lines_with("reconcile failed").empty());
}

TEST_F(ControllerTest, OutcomesAreCounted) {
  base::Counter counted("collage_reconcile_total", "Reconciles by how they ended.",
                        {"controller", "outcome"});
  const double before = counted.value({"counted", "done"});
  Script script({Done{}});
  Controller controller(
      "counted", 1, [&](const base::Context&, const std::string& key) { return script(key); }, clock_);
  controller.start(context_);
  controller.enqueue("a");
  ASSERT_TRUE(script.wait_for_calls(1));
  controller.stop();
  EXPECT_EQ(counted.value({"counted", "done"}), before + 1);
  EXPECT_THAT(base::metrics_text(), ::testing::HasSubstr("workqueue_adds_total{name=\"counted\"}"));
}

}  // namespace
}  // namespace collage::kube
