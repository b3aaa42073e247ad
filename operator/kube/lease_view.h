#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/json.h"

// The decisions of leader election, without time or network of their own. Inside operator/kube and its tests
// only.
namespace collage::kube::detail {

// A Lease (coordination.k8s.io/v1) as its candidates read it.
struct LeaseRecord {
  std::string holder;  // "" when it was given up
  std::chrono::nanoseconds duration{0};
  std::string resource_version;
  std::string acquire_time;
  int64_t transitions = 0;
};
LeaseRecord parse_lease(const base::Json& lease);

// What one candidate knows, and what follows from it. Times are of CLOCK_BOOTTIME.
//
//   the holder  sent a renewal at S, and it was accepted: may write until S + renew_deadline, no longer
//   any other   saw the record change last at R: may take the lease at R + duration, no earlier
//               found at M that there is no Lease: may create it at M + duration, no earlier
//
// Since the others saw that renewal after it was sent (R >= S) and duration > renew_deadline, nobody takes it
// while the holder may write, and what the holder sent at the last moment has duration - renew_deadline to
// arrive. A Lease that is missing may have been deleted the moment before, under a holder that renewed it the
// moment before that: the same holds of M. No date is ever compared: the clocks of two nodes need only run at
// about the same speed. Not thread safe.
class LeaseView {
 public:
  LeaseView(std::string identity, std::chrono::nanoseconds duration, std::chrono::nanoseconds renew_deadline);

  // Nobody has led yet: that there is no Lease is no reason to wait.
  void nobody_led() { missing_ = true; }
  // What the server showed (nullptr: no such Lease), in an answer that came at `now`.
  void observe(const base::Json* lease, std::chrono::nanoseconds now);
  // How long until this candidate may try to take the lease; zero: now.
  std::chrono::nanoseconds wait(std::chrono::nanoseconds now) const;

  // The Lease to write to take or renew it, made from what was observed last; its resourceVersion is the
  // precondition of the write. Without one, the lease is to be created.
  base::Json claim(const std::string& name_space, const std::string& name, base::Clock::Wall wall) const;
  // The Lease to write to give it up.
  base::Json give_up(base::Clock::Wall wall) const;
  // The server accepted a claim that was sent at `sent`, and answered with `lease`.
  void held(const base::Json& lease, std::chrono::nanoseconds sent);
  void lost() { held_until_.reset(); }

  // How long this candidate may still write.
  absl::StatusOr<std::chrono::nanoseconds> holds_for(std::chrono::nanoseconds now) const;
  bool observed_as_holder() const { return record_ && record_->holder == identity_; }
  const std::string& holder() const;
  std::string resource_version() const { return record_ ? record_->resource_version : ""; }

 private:
  const std::string identity_;
  const std::chrono::nanoseconds duration_;
  const std::chrono::nanoseconds renew_deadline_;
  std::shared_ptr<const base::Json> lease_;  // whole, so that fields we do not know are kept
  std::optional<LeaseRecord> record_;
  bool missing_ = false;                 // there was no Lease at the last look
  std::chrono::nanoseconds free_at_{0};  // of the last record that another held
  std::optional<std::chrono::nanoseconds> held_until_;
};

}  // namespace collage::kube::detail
