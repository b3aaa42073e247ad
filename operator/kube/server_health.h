#pragma once

#include <array>
#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "base/context.h"

namespace collage::kube::detail {

// What is wrong with an API server, as a caller sees it.
enum class Problem {
  kUnreachable,  // no connection, or it broke
  kSilent,       // no answer in time
  kFailing,      // 5xx
  kOverloaded,   // 429
  kUntrusted,    // its certificate, or our credentials
  kGarbled,      // an answer that is no JSON
};
inline constexpr size_t kProblems = 6;
std::string_view word(Problem problem);  // for messages and metrics: "unreachable", ...

// How one API server answers one client. Every call is noted; a change is logged once, in words for a person:
// what is wrong, at which call, and that the process waits and goes on; then that the server answers again. A
// server that comes and goes is told of every half minute. Thread safe.
class ServerHealth {
 public:
  explicit ServerHealth(std::string server) : server_(std::move(server)) {}

  void good(const base::Context& context);
  // `doing`: the call, with the resource's name.
  void bad(const base::Context& context, Problem problem, std::string_view doing, const absl::Status& status);
  // OK, or UNAVAILABLE with server, problem and what is done about it: for a readiness check.
  absl::Status status() const;

 private:
  using Time = base::Clock::Monotonic;
  const std::string server_;
  std::atomic<bool> troubled_ = false;
  mutable std::mutex mutex_;
  absl::Status trouble_;                                // the present one
  Time since_{};                                        // when it began
  bool told_ = false;                                   // a warning that no "answers again" has followed yet
  std::array<std::optional<Time>, kProblems> told_at_;  // the last warning of each
};

}  // namespace collage::kube::detail
