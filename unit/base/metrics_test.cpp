#include "base/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/random.h"

namespace collage::base {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A name that no other test, and no other run of the same test in this process, has used: the registry is the
// process's.
std::string fresh(const std::string& name) {
  return name + "_" + random_hex(4);
}

TEST(Metrics, CountersCountByLabelValues) {
  const std::string name = fresh("test_operations_total");
  const Counter counter(name, "Operations.", {"kind", "result"});
  counter.add({"image", "ok"});
  counter.add({"image", "ok"}, 2);
  counter.add({"local", "error"});
  EXPECT_EQ(counter.value({"image", "ok"}), 3);
  const std::string text = metrics_text();
  EXPECT_THAT(text, HasSubstr("# HELP " + name + " Operations.\n# TYPE " + name + " counter\n"));
  EXPECT_THAT(text, HasSubstr(name + "{kind=\"image\",result=\"ok\"} 3\n"));
  EXPECT_THAT(text, HasSubstr(name + "{kind=\"local\",result=\"error\"} 1\n"));
}

TEST(Metrics, AFamilyWithoutLabelsIsShownFromTheStart) {
  const Counter counter("test_quiet_total", "Nothing yet.");
  const Gauge gauge("test_quiet", "Nothing yet.");
  EXPECT_THAT(metrics_text(), HasSubstr("test_quiet_total 0\n"));
  EXPECT_THAT(metrics_text(), HasSubstr("test_quiet 0\n"));
}

TEST(Metrics, TwoFamiliesOfOneNameAreOne) {
  const std::string name = fresh("test_shared_total");
  const Counter first(name, "Shared.", {"a"}), second(name, "Shared.", {"a"});
  first.add({"x"});
  second.add({"x"});
  EXPECT_EQ(first.value({"x"}), 2);
  const std::string text = metrics_text();
  EXPECT_EQ(text.find("# TYPE " + name), text.rfind("# TYPE " + name));
}

TEST(Metrics, GaugesGoUpAndDown) {
  const Gauge gauge("test_depth", "Depth.", {"queue"});
  gauge.set(5, {"a"});
  gauge.add(-2, {"a"});
  EXPECT_EQ(gauge.value({"a"}), 3);
}

TEST(Metrics, HistogramsHaveBucketsInSeconds) {
  const std::string name = fresh("test_seconds");
  const Histogram histogram(name, "Time.", {"kind"});
  histogram.observe(0.004, {"image"});
  histogram.observe(601, {"image"});
  const std::string text = metrics_text();
  EXPECT_THAT(text, HasSubstr(name + "_bucket{kind=\"image\",le=\"0.005\"} 1\n"));
  EXPECT_THAT(text, HasSubstr(name + "_bucket{kind=\"image\",le=\"600\"} 1\n"));
  EXPECT_THAT(text, HasSubstr(name + "_bucket{kind=\"image\",le=\"+Inf\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(name + "_count{kind=\"image\"} 2\n"));
}

double value_of(const std::string& text, const std::string& name) {
  const size_t at = text.find("\n" + name + " ");
  return at == std::string::npos ? -1 : std::stod(text.substr(at + name.size() + 2));
}

TEST(Metrics, ShowTheProcess) {
  const std::string text = metrics_text();
  EXPECT_GT(value_of(text, "process_resident_memory_bytes"), 1e6);
  const double now = static_cast<double>(time(nullptr));
  EXPECT_NEAR(value_of(text, "process_start_time_seconds"), now, 3600);
  EXPECT_LE(value_of(text, "process_start_time_seconds"), now + 2);
}

TEST(Metrics, ValuesAreEscaped) {
  const std::string name = fresh("test_escaped_total");
  const Counter counter(name, "Escaped.", {"path"});
  counter.add({"a\"b\nc"});
  EXPECT_THAT(metrics_text(), HasSubstr(name + "{path=\"a\\\"b\\nc\"} 1\n"));
}

TEST(Metrics, ManyThreadsLoseNothing) {
  const Counter counter(fresh("test_threads_total"), "Threads.", {"n"});
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 500; ++i) counter.add({i % 2 == 0 ? "even" : "odd"});
      });
    }
  }
  EXPECT_EQ(counter.value({"even"}), 2000);
  EXPECT_EQ(counter.value({"odd"}), 2000);
}

}  // namespace
}  // namespace collage::base
