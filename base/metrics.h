#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

// Counters, gauges and histograms of the process, over prometheus-cpp. Thread safe. A family is made once
// (static or member) and used by label values in the order of its label names; label values come from fixed
// sets.
namespace collage::base {

using LabelValues = std::initializer_list<std::string_view>;

class Counter {
 public:
  Counter(const std::string& name, const std::string& help, std::vector<std::string> labels = {});
  void add(LabelValues values = {}, double amount = 1) const;
  double value(LabelValues values = {}) const;  // for tests

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

class Gauge {
 public:
  Gauge(const std::string& name, const std::string& help, std::vector<std::string> labels = {});
  void set(double value, LabelValues values = {}) const;
  void add(double amount, LabelValues values = {}) const;
  double value(LabelValues values = {}) const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

class Histogram {
 public:
  // Buckets in seconds: 5 ms to 10 min.
  Histogram(const std::string& name, const std::string& help, std::vector<std::string> labels = {});
  void observe(double seconds, LabelValues values = {}) const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// The text exposition format of all of the above, plus process_resident_memory_bytes and
// process_start_time_seconds.
std::string metrics_text();

}  // namespace collage::base
