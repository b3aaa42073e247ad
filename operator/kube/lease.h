#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/context.h"
#include "operator/kube/client.h"

namespace collage::kube {

struct LeaseOptions {
  Key key;               // namespace and name of the Lease
  std::string identity;  // pod name + a random part
  std::chrono::milliseconds duration = std::chrono::seconds(15);
  std::chrono::milliseconds renew_deadline = std::chrono::seconds(10);
  std::chrono::milliseconds retry = std::chrono::seconds(5);
};

// What a Lease that is missing at the first look means.
enum class MissingLease {
  kDeleted,  // perhaps under a leader that goes on for a moment: create it only once its time is over
  kFree,     // nobody has led here yet: create it at once
};

// Leader election by a Lease that fences: holds_for() is measured on CLOCK_BOOTTIME from the moment before
// the renewal was sent, so a leader that was stopped for a minute and continued holds nothing. The client
// given here has no fence of its own.
class Lease final : public Fence {
 public:
  Lease(Client& client, LeaseOptions options, const base::Clock& clock = base::Clock::real());
  ~Lease() override;

  // Blocks until this process leads (OK) or the context ends.
  absl::Status acquire(const base::Context& context, MissingLease missing = MissingLease::kDeleted);
  // Renews in a thread until stop; `on_lost` is called once, on that thread, if the lease is lost. It must
  // not call release().
  void keep(const base::Context& context, std::function<void()> on_lost);
  // Stops renewing and gives the lease up, so that another may lead at once. Call last.
  void release(const base::Context& context);

  absl::StatusOr<std::chrono::nanoseconds> holds_for() const override;
  // For a liveness probe: not OK once the lease ran out without a release and the process, which should have
  // ended then, is still there half a minute later. OK for who waits for the lease.
  absl::Status healthy() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace collage::kube
