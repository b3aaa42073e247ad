#include "operator/csi/call.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/metrics.h"

namespace collage::csi {
namespace {

using base::Context;
using std::chrono::nanoseconds;

constexpr size_t kThreadsPerLane = 8;
constexpr size_t kMostWaiting = 256;
constexpr nanoseconds kMostMargin = std::chrono::milliseconds(500);
constexpr nanoseconds kLongest = std::chrono::hours(1);  // of a call without a deadline

const base::Histogram& seconds() {
  static const base::Histogram histogram("collage_csi_call_seconds", "CSI calls by driver, method and code.",
                                         {"driver", "method", "code"});
  return histogram;
}

nanoseconds time_left(const grpc::CallbackServerContext& context) {
  const auto now = std::chrono::system_clock::now();
  if (context.deadline() >= now + kLongest) return kLongest;
  const nanoseconds left = context.deadline() - now;
  return left - std::min(kMostMargin, left / 10);
}

// gRPC puts the steps of a call in order itself; this says so where ThreadSanitizer sees it too. Of all
// calls, since it must be older than any.
std::atomic<uint64_t> steps = 0;

class Call : public grpc::ServerUnaryReactor {
 public:
  Call(grpc::CallbackServerContext* context, std::string driver, const char* method,
       const std::string& volume)
      : driver_(std::move(driver)),
        method_(method),
        context_(Context(stop_.get_token())
                     .with_timeout(time_left(*context))
                     .with_field("driver", driver_)
                     .with_field("method", method)
                     .with_field("volume", volume)) {}

  void run(const Lanes::Work& work) {
    absl::Status status = context_.status();
    if (status.ok()) status = work(context_);
    answer(status);
  }

  void answer(const absl::Status& status) {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun_;
    const std::string code = absl::StatusCodeToString(status.code());
    seconds().observe(took.count(), {driver_, method_, code});
    if (!status.ok()) base::log::warning(context_, "csi call failed", {{"error", status}});
    ++steps;
    Finish(to_grpc(status));
  }

 private:
  void OnCancel() override {
    stop_.request_stop();
    ++steps;
  }
  void OnDone() override {
    ++steps;
    delete this;
  }

  const std::string driver_;
  const char* const method_;
  const std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
  std::stop_source stop_;
  const Context context_;
};

}  // namespace

grpc::Status to_grpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

Lanes::Lanes() {
  for (std::unique_ptr<base::Workers>& lane : lanes_)
    lane = std::make_unique<base::Workers>("csi", kThreadsPerLane);
}

grpc::ServerUnaryReactor* Lanes::run(grpc::CallbackServerContext* context, const std::string& driver,
                                     const char* method, const std::string& volume, Work work) {
  auto* call = new Call(context, driver, method, volume);
  base::Workers& lane = *lanes_[std::hash<std::string>()(volume.substr(0, volume.find('/'))) % lanes_.size()];
  if (lane.queued() >= kMostWaiting) {
    call->answer(absl::UnavailableError(absl::StrCat(kMostWaiting, " calls wait already; try again later")));
  } else if (!lane.submit([call, work = std::move(work)] { call->run(work); })) {
    call->answer(absl::UnavailableError("the node agent is stopping"));
  }
  return call;
}

void Lanes::stop() {
  for (const std::unique_ptr<base::Workers>& lane : lanes_) lane->stop();
}

grpc::ServerUnaryReactor* finish(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(to_grpc(status));
  return reactor;
}

}  // namespace collage::csi
