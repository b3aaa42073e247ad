#include "operator/engine/limits.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/quantity.h"

namespace collage::engine {

int64_t Usage::Item::bytes() const {
  return std::max(real, reserved);
}

void Usage::put(PerBackend& backend, const std::string& volume_name, Item item) {
  Item& slot = backend.items[volume_name];
  backend.total.volumes += (item.bytes() >= 0) - (slot.bytes() >= 0);
  backend.total.bytes += std::max<int64_t>(item.bytes(), 0) - std::max<int64_t>(slot.bytes(), 0);
  slot = item;
  if (item.bytes() < 0) backend.items.erase(volume_name);
}

void Usage::set(const std::string& backend, const std::string& volume_name, int64_t bytes) {
  std::lock_guard lock(mutex_);
  PerBackend& known = backends_[backend];
  put(known, volume_name, {.real = std::max<int64_t>(bytes, -1)});
  if (known.items.empty()) backends_.erase(backend);
}

absl::Status Usage::reserve(const std::string& backend, const Limits& limits, const std::string& volume_name,
                            int64_t bytes) {
  if (limits.max_volume_bytes > 0 && bytes > limits.max_volume_bytes) {
    return absl::OutOfRangeError(
        absl::StrCat("StorageBackend \"", backend, "\" spec.limits.maxVolumeSize is ",
                     base::format_quantity(limits.max_volume_bytes), ", ", base::format_quantity(bytes),
                     " was asked for: ask for less or raise the limit"));
  }
  std::lock_guard lock(mutex_);
  PerBackend& known = backends_[backend];
  const auto found = known.items.find(volume_name);
  const Item before = found == known.items.end() ? Item{} : found->second;
  Item after = before;
  after.reserved = bytes;
  const int64_t volumes = known.total.volumes + (before.bytes() < 0);
  const int64_t others = known.total.bytes - std::max<int64_t>(before.bytes(), 0);
  absl::Status status;
  if (limits.max_volumes > 0 && volumes > limits.max_volumes) {
    status = absl::ResourceExhaustedError(
        absl::StrCat("StorageBackend \"", backend, "\" spec.limits.maxVolumes is ", limits.max_volumes, ", ",
                     known.total.volumes, " are used: delete volumes or raise the limit"));
  } else if (limits.max_provisioned_bytes > 0 && after.bytes() > limits.max_provisioned_bytes - others) {
    status = absl::ResourceExhaustedError(
        absl::StrCat("StorageBackend \"", backend, "\" spec.limits.maxProvisioned is ",
                     base::format_quantity(limits.max_provisioned_bytes), ", ", base::format_quantity(others),
                     " are used and ", base::format_quantity(bytes),
                     " was asked for: ask for less, delete volumes or raise the limit"));
  } else {
    put(known, volume_name, after);
  }
  if (known.items.empty()) backends_.erase(backend);
  return status;
}

bool Usage::release(const std::string& backend, const std::string& volume_name) {
  std::lock_guard lock(mutex_);
  const auto known = backends_.find(backend);
  if (known == backends_.end()) return false;
  const auto found = known->second.items.find(volume_name);
  if (found == known->second.items.end()) return false;
  const int64_t before = found->second.bytes(), real = found->second.real;
  put(known->second, volume_name, {.real = real});
  if (known->second.items.empty()) backends_.erase(known);
  return real < before;
}

Usage::Total Usage::total(const std::string& backend) const {
  std::lock_guard lock(mutex_);
  const auto known = backends_.find(backend);
  return known == backends_.end() ? Total{} : known->second.total;
}

}  // namespace collage::engine
