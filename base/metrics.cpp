#include "base/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/files.h"

namespace collage::base {
namespace {

// Never destroyed: families are used until the last thread ends. A second family of the same name is the
// first one.
prometheus::Registry& registry() {
  static auto* const instance = new prometheus::Registry(prometheus::Registry::InsertBehavior::Merge);
  return *instance;
}

prometheus::Labels labels_of(const std::vector<std::string>& names, LabelValues values) {
  prometheus::Labels labels;
  auto value = values.begin();
  for (const std::string& name : names) {
    // Prometheus takes an empty value for a missing label.
    labels[name] = value != values.end() ? std::string(*value++) : "";
  }
  return labels;
}

const prometheus::Histogram::BucketBoundaries& buckets() {
  static const auto* const bounds = new prometheus::Histogram::BucketBoundaries{
      0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600};
  return *bounds;
}

double resident_bytes() {
  const auto text = read_file("/proc/self/statm");
  if (!text.ok()) return 0;
  const std::vector<absl::string_view> fields = absl::StrSplit(*text, ' ');
  int64_t pages = 0;
  if (fields.size() < 2 || !absl::SimpleAtoi(fields[1], &pages)) return 0;
  return static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double start_time_seconds() {
  const auto text = read_file("/proc/self/stat");
  if (!text.ok()) return 0;
  // The second field, the name in parentheses, may hold spaces; field 22 is the start in ticks since boot.
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(*text).substr(text->rfind(')') + 1), ' ', absl::SkipEmpty());
  int64_t ticks = 0;
  if (fields.size() < 20 || !absl::SimpleAtoi(fields[19], &ticks)) return 0;
  const std::chrono::duration<double> wall = Clock::real().wall().time_since_epoch();
  const std::chrono::duration<double> boot = Clock::real().boot_time();
  return wall.count() - boot.count() + static_cast<double>(ticks) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

}  // namespace

struct Counter::Impl {
  std::vector<std::string> labels;
  prometheus::Family<prometheus::Counter>& family;
};

Counter::Counter(const std::string& name, const std::string& help, std::vector<std::string> labels)
    : impl_(new Impl{std::move(labels),
                     prometheus::BuildCounter().Name(name).Help(help).Register(registry())}) {
  if (impl_->labels.empty()) add({}, 0);  // shown as 0 from the start
}

void Counter::add(LabelValues values, double amount) const {
  impl_->family.Add(labels_of(impl_->labels, values)).Increment(amount);
}

double Counter::value(LabelValues values) const {
  return impl_->family.Add(labels_of(impl_->labels, values)).Value();
}

struct Gauge::Impl {
  std::vector<std::string> labels;
  prometheus::Family<prometheus::Gauge>& family;
};

Gauge::Gauge(const std::string& name, const std::string& help, std::vector<std::string> labels)
    : impl_(
          new Impl{std::move(labels), prometheus::BuildGauge().Name(name).Help(help).Register(registry())}) {
  if (impl_->labels.empty()) add(0);
}

void Gauge::set(double value, LabelValues values) const {
  impl_->family.Add(labels_of(impl_->labels, values)).Set(value);
}

void Gauge::add(double amount, LabelValues values) const {
  impl_->family.Add(labels_of(impl_->labels, values)).Increment(amount);
}

double Gauge::value(LabelValues values) const {
  return impl_->family.Add(labels_of(impl_->labels, values)).Value();
}

struct Histogram::Impl {
  std::vector<std::string> labels;
  prometheus::Family<prometheus::Histogram>& family;
};

Histogram::Histogram(const std::string& name, const std::string& help, std::vector<std::string> labels)
    : impl_(new Impl{std::move(labels),
                     prometheus::BuildHistogram().Name(name).Help(help).Register(registry())}) {}

void Histogram::observe(double seconds, LabelValues values) const {
  impl_->family.Add(labels_of(impl_->labels, values), buckets()).Observe(seconds);
}

std::string metrics_text() {
  static const Gauge resident("process_resident_memory_bytes", "Resident memory of the process in bytes.");
  static const Gauge start("process_start_time_seconds", "Start of the process in seconds since 1970.");
  static const double started = start_time_seconds();
  resident.set(resident_bytes());
  start.set(started);
  return prometheus::TextSerializer().Serialize(registry().Collect());
}

}  // namespace collage::base
