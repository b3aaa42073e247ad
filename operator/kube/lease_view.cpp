#include "operator/kube/lease_view.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/strings.h"

namespace collage::kube::detail {

using base::Json;
using std::chrono::nanoseconds;

LeaseRecord parse_lease(const Json& lease) {
  LeaseRecord record;
  record.holder = base::get_string(lease, "/spec/holderIdentity");
  record.duration =
      std::chrono::seconds(std::clamp<int64_t>(base::get_int(lease, "/spec/leaseDurationSeconds"), 0, 3600));
  record.resource_version = base::get_string(lease, "/metadata/resourceVersion");
  record.acquire_time = base::get_string(lease, "/spec/acquireTime");
  record.transitions = base::get_int(lease, "/spec/leaseTransitions");
  return record;
}

LeaseView::LeaseView(std::string identity, nanoseconds duration, nanoseconds renew_deadline)
    : identity_(std::move(identity)), duration_(duration), renew_deadline_(renew_deadline) {}

void LeaseView::observe(const Json* lease, nanoseconds now) {
  if (lease == nullptr) {
    // Deleted by a person. Its last holder, seen here or not, may still write.
    if (!missing_) free_at_ = std::max(free_at_, now + duration_);
    missing_ = true;
    lease_.reset();
    record_.reset();
    return;
  }
  missing_ = false;
  LeaseRecord seen = parse_lease(*lease);
  // Any write counts as a sign of life of the holder: to wait too long is safe.
  const bool changed = !record_ || record_->resource_version != seen.resource_version;
  if (changed && !seen.holder.empty() && seen.holder != identity_) {
    free_at_ = now + (seen.duration > nanoseconds(0) ? seen.duration : duration_);
  }
  // A clean release: whoever held it had stopped writing before.
  if (changed && seen.holder.empty()) free_at_ = now;
  lease_ = std::make_shared<const Json>(*lease);
  record_ = std::move(seen);
}

nanoseconds LeaseView::wait(nanoseconds now) const {
  return std::max(nanoseconds(0), free_at_ - now);
}

Json LeaseView::claim(const std::string& name_space, const std::string& name, base::Clock::Wall wall) const {
  Json lease = lease_ ? *lease_
                      : Json{{"apiVersion", "coordination.k8s.io/v1"},
                             {"kind", "Lease"},
                             {"metadata", {{"namespace", name_space}, {"name", name}}}};
  Json spec = lease.contains("spec") && lease["spec"].is_object() ? lease["spec"] : Json::object();
  const std::string now = base::rfc3339_micro(wall);
  const bool renewal = observed_as_holder() && !record_->acquire_time.empty();
  spec["holderIdentity"] = identity_;
  spec["leaseDurationSeconds"] =
      std::max<int64_t>(1, std::chrono::ceil<std::chrono::seconds>(duration_).count());
  spec["renewTime"] = now;
  spec["acquireTime"] = renewal ? record_->acquire_time : now;
  spec["leaseTransitions"] = record_ ? record_->transitions + (renewal ? 0 : 1) : 0;
  lease["spec"] = std::move(spec);
  return lease;
}

Json LeaseView::give_up(base::Clock::Wall wall) const {
  Json lease = *lease_;
  lease["spec"]["holderIdentity"] = "";
  lease["spec"]["leaseDurationSeconds"] = 1;
  lease["spec"]["renewTime"] = base::rfc3339_micro(wall);
  return lease;
}

void LeaseView::held(const Json& lease, nanoseconds sent) {
  missing_ = false;
  lease_ = std::make_shared<const Json>(lease);
  record_ = parse_lease(lease);
  held_until_ = sent + renew_deadline_;
}

absl::StatusOr<nanoseconds> LeaseView::holds_for(nanoseconds now) const {
  if (!held_until_)
    return absl::FailedPreconditionError(
        base::cat("the lease is not held; its holder is \"", holder(), "\""));
  if (now >= *held_until_) return absl::FailedPreconditionError("the lease was not renewed in time");
  return *held_until_ - now;
}

const std::string& LeaseView::holder() const {
  static const std::string none;
  return record_ ? record_->holder : none;
}

}  // namespace collage::kube::detail
