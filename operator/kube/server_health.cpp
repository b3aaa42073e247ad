#include "operator/kube/server_health.h"

#include "base/log.h"
#include "base/metrics.h"
#include "base/strings.h"

namespace collage::kube::detail {
namespace {

constexpr std::chrono::seconds kTellAgain{30};

const base::Counter& problems() {
  static const base::Counter counter("collage_kube_server_problems_total",
                                     "Calls of the API server that it did not answer as it should.",
                                     {"problem"});
  return counter;
}

}  // namespace

std::string_view word(Problem problem) {
  switch (problem) {
    case Problem::kUnreachable:
      return "unreachable";
    case Problem::kSilent:
      return "silent";
    case Problem::kFailing:
      return "failing";
    case Problem::kOverloaded:
      return "overloaded";
    case Problem::kUntrusted:
      return "untrusted";
    case Problem::kGarbled:
      return "garbled";
  }
  return "";
}

void ServerHealth::good(const base::Context& context) {
  if (!troubled_.load(std::memory_order_relaxed)) return;
  std::lock_guard lock(mutex_);
  if (!troubled_) return;
  troubled_ = false;
  trouble_ = absl::OkStatus();
  if (!told_) return;
  told_ = false;
  const std::chrono::duration<double> lasted = context.clock().now() - since_;
  base::log::info(context, "the API server answers again",
                  {{"server", server_}, {"seconds", lasted.count()}});
}

void ServerHealth::bad(const base::Context& context, Problem problem, std::string_view doing,
                       const absl::Status& status) {
  problems().add({word(problem)});
  const Time now = context.clock().now();
  std::lock_guard lock(mutex_);
  if (!troubled_) since_ = now;
  troubled_ = true;
  trouble_ = absl::UnavailableError(base::cat("the API server ", server_, " is ", word(problem), " (", doing,
                                              ": ", base::std_view(status.message()), "): waiting for it"));
  auto& told_at = told_at_[static_cast<size_t>(problem)];
  if (told_at && now < *told_at + kTellAgain) return;
  told_at = now;
  told_ = true;
  base::log::warning(context, "the API server does not answer as it should, waiting and trying again",
                     {{"server", server_}, {"problem", word(problem)}, {"call", doing}, {"error", status}});
}

absl::Status ServerHealth::status() const {
  std::lock_guard lock(mutex_);
  return trouble_;
}

}  // namespace collage::kube::detail
