#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"

namespace collage::testing {

// Keeps every line that is logged while it lives. One at a time; made and destroyed while nobody logs.
class CapturedLog {
 public:
  CapturedLog() {
    lines().clear();
    base::log::set_sink([](std::string_view line) {
      std::lock_guard lock(mutex());
      lines().emplace_back(line);
    });
  }
  ~CapturedLog() { base::log::set_sink(nullptr); }
  CapturedLog(const CapturedLog&) = delete;

  // Lines that hold every part.
  std::vector<std::string> with(std::initializer_list<std::string_view> parts) const {
    std::lock_guard lock(mutex());
    std::vector<std::string> found;
    for (const std::string& line : lines()) {
      bool all = true;
      for (const std::string_view part : parts) all = all && line.find(part) != std::string::npos;
      if (all) found.push_back(line);
    }
    return found;
  }

 private:
  static std::mutex& mutex() {
    static std::mutex mutex;
    return mutex;
  }
  static std::vector<std::string>& lines() {
    static std::vector<std::string> lines;
    return lines;
  }
};

}  // namespace collage::testing
