#include "operator/reconcile/capacity.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/quantity.h"
#include "base/random.h"
#include "base/status.h"
#include "operator/engine/names.h"

namespace collage::reconcile {
namespace {

using base::Json;

constexpr char kDriverLabel[] = "csi.storage.k8s.io/drivername";
constexpr char kManagedByLabel[] = "csi.storage.k8s.io/managed-by";
constexpr auto kReadAgain = std::chrono::seconds(55);
constexpr char kManagedBy[] = "collage";

std::string object_name(const std::string& storage_class, const drivers::Topology& segment) {
  std::string content = storage_class;
  for (const auto& [key, value] : segment) absl::StrAppend(&content, "\n", key, "=", value);
  return absl::StrCat("csisc-", base::sha256_hex(content).substr(0, 20));
}

Json capacity_object(const World& world, const engine::Backend& backend, const std::string& storage_class,
                     const SegmentCapacity& room) {
  Json object = {
      {"apiVersion", kube::kCsiStorageCapacities.api_version()},
      {"kind", "CSIStorageCapacity"},
      {"metadata",
       {{"name", object_name(storage_class, room.segment)},
        {"namespace", world.name_space},
        {"labels",
         {{kDriverLabel, drivers::csi_driver_name(backend.spec.kind)},
          {kManagedByLabel, kManagedBy},
          {engine::kBackendLabel, backend.spec.name}}},
        // Gone with its backend even if nobody runs to remove it.
        {"ownerReferences", Json::array({{{"apiVersion", kube::kStorageBackends.api_version()},
                                          {"kind", "StorageBackend"},
                                          {"name", backend.spec.name},
                                          {"uid", backend.uid}}})}}},
      {"storageClassName", storage_class},
      {"nodeTopology", {{"matchLabels", room.segment}}},
      {"capacity", base::format_quantity(room.capacity.available_bytes)},
  };
  if (room.segment.empty()) object["nodeTopology"] = Json::object();
  if (room.capacity.maximum_volume_bytes > 0)
    object["maximumVolumeSize"] = base::format_quantity(room.capacity.maximum_volume_bytes);
  return object;
}

}  // namespace

drivers::Capacity under_limits(drivers::Capacity capacity, const engine::Limits& limits,
                               const engine::Usage::Total& used) {
  if (limits.max_provisioned_bytes > 0) {
    const int64_t left = std::max<int64_t>(0, limits.max_provisioned_bytes - used.bytes);
    capacity.available_bytes = std::min(capacity.available_bytes, left);
  }
  if (limits.max_volumes > 0 && used.volumes >= limits.max_volumes) capacity.available_bytes = 0;
  if (limits.max_volume_bytes > 0 &&
      (capacity.maximum_volume_bytes == 0 || limits.max_volume_bytes < capacity.maximum_volume_bytes)) {
    capacity.maximum_volume_bytes = limits.max_volume_bytes;
  }
  return capacity;
}

bool worth_publishing(const drivers::Capacity& published, const drivers::Capacity& now) {
  // For many drivers the largest volume is what is available, and moves with each volume that is made.
  const auto moved = [](int64_t before, int64_t after) {
    return (before == 0) != (after == 0) || std::abs(before - after) > std::max(before, after) / 100;
  };
  return moved(published.available_bytes, now.available_bytes) ||
         moved(published.maximum_volume_bytes, now.maximum_volume_bytes);
}

absl::StatusOr<std::vector<SegmentCapacity>> CapacityPublisher::measure(
    const base::Context& context, const engine::Backend& backend, const drivers::Kind& kind,
    const std::vector<NodeView>& nodes) const {
  const auto used = world_.usage.total(backend.spec.name);
  std::vector<SegmentCapacity> segments;
  auto add = [&](drivers::Topology segment, const drivers::Capacity& capacity) {
    segments.push_back({std::move(segment), under_limits(capacity, backend.spec.limits, used)});
  };
  if (!kind.reports_capacity) {
    add({}, {.available_bytes = std::numeric_limits<int64_t>::max() / 2});
    return segments;
  }
  switch (kind.info.control) {
    case drivers::ControlPlace::kOwnerNode:
      for (const NodeView& node : nodes) {
        if (node.ready && node.capacity)
          add({{drivers::node_topology_key(kind.info.kind), node.name}}, *node.capacity);
      }
      break;
    case drivers::ControlPlace::kAnyNode:
      // The same storage from everywhere: the first node that measured it speaks for all.
      for (const NodeView& node : nodes) {
        if (node.ready && node.capacity && segments.empty()) add({}, *node.capacity);
      }
      break;
    case drivers::ControlPlace::kAnywhere: {
      drivers::CapacityReporter* reporter = backend.driver->capacity_reporter();
      if (reporter == nullptr)
        return absl::InternalError("the driver reports no capacity though its kind does");
      auto measured = reporter->capacity(context, {}, {});
      if (!measured.ok()) return base::annotate(measured.status(), "measure the capacity");
      add({}, *measured);
      break;
    }
  }
  return segments;
}

absl::Status CapacityPublisher::load(const base::Context& context) {
  // Now and then it is read again: what somebody deleted is made again.
  const auto now = context.clock().now();
  if (loaded_ && now - loaded_at_ < kReadAgain) return absl::OkStatus();
  loaded_at_ = now;
  std::map<std::string, Published> found;
  kube::ListOptions options{.name_space = world_.name_space,
                            .label_selector = absl::StrCat(kManagedByLabel, "=", kManagedBy)};
  auto listed = world_.client.list(context, kube::kCsiStorageCapacities, options, [&](Json& object) {
    drivers::Capacity capacity;
    capacity.available_bytes = base::parse_quantity(base::get_string(object, "/capacity", "0")).value_or(0);
    capacity.maximum_volume_bytes =
        base::parse_quantity(base::get_string(object, "/maximumVolumeSize", "0")).value_or(0);
    found[base::get_string(object, "/metadata/name")] = {
        base::get_string(object, "/metadata/labels/collage.storage~1backend"), capacity};
    return absl::OkStatus();
  });
  if (!listed.ok()) return base::annotate(listed.status(), "list CSIStorageCapacity objects");
  published_ = std::move(found);
  loaded_ = true;
  return absl::OkStatus();
}

absl::Status CapacityPublisher::publish(const base::Context& context, const engine::Backend& backend,
                                        const std::vector<SegmentCapacity>& segments) {
  std::lock_guard lock(mutex_);
  COLLAGE_RETURN_IF_ERROR(load(context));
  std::set<std::string> wanted;
  for (const auto& storage_class : backend.spec.storage_classes) {
    for (const SegmentCapacity& room : segments) {
      const std::string name = object_name(storage_class.name, room.segment);
      wanted.insert(name);
      auto present = published_.find(name);
      if (present != published_.end() && !worth_publishing(present->second.capacity, room.capacity)) continue;
      // Server-side apply: the same call makes it and changes it.
      auto applied = world_.client.patch(context, kube::kCsiStorageCapacities, {world_.name_space, name},
                                         kube::PatchType::kApply,
                                         capacity_object(world_, backend, storage_class.name, room), {});
      if (!applied.ok())
        return base::annotate(applied.status(),
                              absl::StrCat("publish the capacity of class ", storage_class.name));
      published_[name] = {backend.spec.name, room.capacity};
    }
  }
  for (auto entry = published_.begin(); entry != published_.end();) {
    if (entry->second.backend != backend.spec.name || wanted.contains(entry->first)) {
      ++entry;
      continue;
    }
    COLLAGE_RETURN_IF_ERROR(
        world_.client.remove(context, kube::kCsiStorageCapacities, {world_.name_space, entry->first}, {}));
    entry = published_.erase(entry);
  }
  return absl::OkStatus();
}

absl::Status CapacityPublisher::remove(const base::Context& context, const std::string& backend) {
  std::lock_guard lock(mutex_);
  COLLAGE_RETURN_IF_ERROR(load(context));
  for (auto entry = published_.begin(); entry != published_.end();) {
    if (entry->second.backend != backend) {
      ++entry;
      continue;
    }
    COLLAGE_RETURN_IF_ERROR(
        world_.client.remove(context, kube::kCsiStorageCapacities, {world_.name_space, entry->first}, {}));
    entry = published_.erase(entry);
  }
  return absl::OkStatus();
}

}  // namespace collage::reconcile
