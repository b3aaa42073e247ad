#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "drivers/store/store_directory.h"

namespace collage::testing {

// The program dies right before change number `at` to the disk (from 0): that change and all later ones do
// not happen.
class Crash {
 public:
  explicit Crash(int at) : at_(at) {}
  drivers::StepHook hook() {
    return [this](absl::string_view step) -> absl::Status {
      if (seen_++ < at_) return absl::OkStatus();
      if (step_.empty()) step_ = std::string(step);
      return absl::UnknownError("crashed");
    };
  }
  bool happened() const { return !step_.empty(); }
  const std::string& step() const { return step_; }

 private:
  const int at_;
  int seen_ = 0;
  std::string step_;
};

// The program is stopped right before the first change that begins with `step`; meanwhile others do what
// `meanwhile` does.
inline drivers::StepHook delayed_at(std::string step, std::function<void()> meanwhile) {
  return [step = std::move(step), meanwhile = std::move(meanwhile),
          done = false](absl::string_view now) mutable -> absl::Status {
    if (!done && absl::StartsWith(now, step)) {
      done = true;
      meanwhile();
    }
    return absl::OkStatus();
  };
}

}  // namespace collage::testing
