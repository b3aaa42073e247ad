#include "operator/kube/transport.h"

#include <algorithm>

#include "base/metrics.h"
#include "base/random.h"
#include "base/retry.h"
#include "base/status.h"
#include "base/strings.h"
#include "operator/kube/answer.h"

namespace collage::kube::detail {
namespace {

constexpr std::chrono::seconds kDefaultTimeout{30};
constexpr int kMaxNotSent = 5;
constexpr int kMaxWaits = 10;
constexpr int kMaxReads = 3;
constexpr size_t kMaxErrorBody = 64 << 10;

struct TransportMetrics {
  base::Histogram seconds{"collage_kube_request_seconds",
                          "Calls of the API server, each send counted.",
                          {"verb", "resource", "code"}};
  base::Counter writes{"collage_kube_writes_total", "Writes sent to the API server.", {"verb", "resource"}};
};

TransportMetrics& metrics() {
  static TransportMetrics metrics;
  return metrics;
}

// What may happen to one call before it is given up.
struct Budget {
  int not_sent = 0;
  int waits = 0;
  int reads = 0;
  bool token_renewed = false;
  base::Backoff backoff{std::chrono::milliseconds(50), std::chrono::seconds(2)};
};

// Waits for what the server asked for, plus up to a quarter so that a crowd spreads out. False when the time
// does not allow it.
bool wait_as_told(const base::Context& context, std::chrono::seconds told) {
  const auto base_wait = std::max<std::chrono::milliseconds>(told, std::chrono::milliseconds(100));
  const auto wait = base_wait + std::chrono::milliseconds(
                                    static_cast<int64_t>(base::random_unit() * base_wait.count() / 4));
  if (context.remaining() < wait) return false;
  return context.sleep_for(wait).ok();
}

}  // namespace

std::string Call::doing() const {
  return name.empty() ? base::cat(verb, " ", resource) : base::cat(verb, " ", resource, " ", name);
}

Transport::Transport(std::unique_ptr<base::HttpClient> http, std::string server, TokenSource token,
                     const Fence* fence, std::string user_agent)
    : http_(std::move(http)),
      token_(std::move(token)),
      fence_(fence),
      user_agent_(std::move(user_agent)),
      health_(std::move(server)),
      slots_(kAtOnce) {}

// http_status 0: there was no answer. What says nothing of the server (a caller that gave up, the fence) is
// not noted.
void Transport::note(const base::Context& context, const Call& call, int http_status,
                     const absl::Status& status) {
  std::optional<Problem> problem;
  if (http_status == 401) problem = Problem::kUntrusted;
  if (http_status == 429) problem = Problem::kOverloaded;
  if (http_status >= 500 && http_status != 501) problem = Problem::kFailing;
  if (http_status == 0) {
    if (absl::IsUnavailable(status)) problem = Problem::kUnreachable;
    if (absl::IsUnauthenticated(status)) problem = Problem::kUntrusted;
    const bool sent = base::sent_of(status) != base::Sent::kNotSent;
    if (absl::IsDeadlineExceeded(status) && sent) problem = Problem::kSilent;
    if (!problem) return;
  }
  if (problem) {
    health_.bad(context, *problem, call.doing(), status);
  } else {
    health_.good(context);
  }
}

void Transport::prepare(Call& call) {
  call.request.headers["user-agent"] = user_agent_;
  call.request.headers["accept"] = "application/json";
  call.request.bearer_token = token_.current();
}

absl::StatusOr<base::HttpResponse> Transport::send_once(const base::Context& context, const Call& call) {
  const auto slot = slots_.take(context);
  if (!slot.ok()) return slot.status();
  base::Context bounded = context;
  if (call.write) {
    if (fence_ != nullptr) {
      const auto holds = fence_->holds_for();
      if (!holds.ok()) return holds.status();
      bounded = bounded.with_timeout(*holds);
    }
    metrics().writes.add({call.verb, call.resource});
  }
  const auto began = std::chrono::steady_clock::now();
  auto response = http_->send(bounded, call.request);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  const std::string code =
      response.ok() ? base::cat(response->status) : absl::StatusCodeToString(response.status().code());
  metrics().seconds.observe(took.count(), {call.verb, call.resource, code});
  return response;
}

absl::StatusOr<std::string> Transport::send(const base::Context& caller, Call call) {
  const base::Context context =
      caller.deadline() == base::Clock::Monotonic::max() ? caller.with_timeout(kDefaultTimeout) : caller;
  Budget budget;
  while (true) {
    if (absl::Status status = context.status(); !status.ok()) return base::annotate(status, call.doing());
    prepare(call);
    auto response = send_once(context, call);
    if (!response.ok()) {
      const absl::Status& failure = response.status();
      // An idle connection that the server closed just now is daily life.
      const bool first = base::sent_of(failure) == base::Sent::kNotSent && budget.not_sent == 0;
      if (!first || !absl::IsUnavailable(failure)) note(context, call, 0, failure);
      if (base::sent_of(failure) == base::Sent::kNotSent &&
          failure.code() == absl::StatusCode::kUnavailable && ++budget.not_sent <= kMaxNotSent) {
        // The first time it is nearly always an idle connection that the server closed just now.
        if (budget.not_sent == 1 || context.sleep_for(budget.backoff.next()).ok()) continue;
      } else if (!call.write && failure.code() == absl::StatusCode::kUnavailable &&
                 ++budget.reads <= kMaxReads) {
        if (context.sleep_for(budget.backoff.next()).ok()) continue;
      }
      return base::annotate(failure, call.doing());
    }
    absl::Status status = status_of(response->status, response->body);
    if (response->status == 401 && !budget.token_renewed) {
      budget.token_renewed = true;
      if (token_.reload()) continue;
    }
    note(context, call, response->status, status);
    if (status.ok()) return std::move(response->body);
    const auto told = retry_after(*response);
    if ((response->status == 429 || (response->status == 503 && told)) && ++budget.waits <= kMaxWaits) {
      if (wait_as_told(context, told.value_or(std::chrono::seconds(1)))) continue;
    } else if (!call.write && status.code() == absl::StatusCode::kUnavailable &&
               ++budget.reads <= kMaxReads) {
      if (context.sleep_for(budget.backoff.next()).ok()) continue;
    }
    return base::annotate(status, call.doing());
  }
}

absl::Status Transport::stream(const base::Context& context, Call call, std::chrono::milliseconds idle,
                               const std::function<absl::Status(std::string_view)>& on_chunk) {
  Budget budget;
  while (true) {
    prepare(call);
    base::HttpResponse head;
    std::string error_body;
    const absl::Status failure = http_->stream(
        context, call.request, idle,
        [&](const base::HttpResponse& response) {
          head = response;
          if (head.status < 300) health_.good(context);
          return absl::OkStatus();
        },
        [&](std::string_view chunk) {
          if (head.status < 300) return on_chunk(chunk);
          error_body.append(chunk.substr(0, kMaxErrorBody - std::min(kMaxErrorBody, error_body.size())));
          return absl::OkStatus();
        });
    if (head.status < 300) {
      // Once the stream runs, its end or its silence is for the reader to judge.
      if (head.status == 0) note(context, call, 0, failure);
      return base::annotate(failure, call.doing());
    }
    if (head.status == 401 && !budget.token_renewed) {
      budget.token_renewed = true;
      if (token_.reload()) continue;
    }
    const absl::Status refusal = status_of(head.status, error_body);
    note(context, call, head.status, refusal);
    const auto told = retry_after(head);
    if (told && (head.status == 429 || head.status == 503) && ++budget.waits <= kMaxWaits &&
        wait_as_told(context, *told)) {
      continue;
    }
    return base::annotate(refusal, call.doing());
  }
}

}  // namespace collage::kube::detail
