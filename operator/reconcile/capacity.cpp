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
constexpr char kHostname[] = "kubernetes.io/hostname";

// A LabelSelector over nodes. Empty: all of them.
Json node_topology(const SegmentCapacity& room) {
  Json selector = Json::object();
  if (!room.segment.empty()) selector["matchLabels"] = room.segment;
  if (!room.without_reach.empty()) {
    selector["matchExpressions"] =
        Json::array({{{"key", kHostname}, {"operator", "NotIn"}, {"values", room.without_reach}}});
  }
  return selector;
}

// The class and the nodes of an object cannot be changed once it is made: others have an object of their own.
std::string object_name(const std::string& storage_class, const SegmentCapacity& room) {
  const std::string content = absl::StrCat(storage_class, "\n", base::dump_json(node_topology(room)));
  return absl::StrCat("csisc-", base::sha256_hex(content).substr(0, 20));
}

Json capacity_object(const World& world, const engine::Backend& backend, const std::string& storage_class,
                     const SegmentCapacity& room) {
  Json object = {
      {"apiVersion", kube::kCsiStorageCapacities.api_version()},
      {"kind", "CSIStorageCapacity"},
      {"metadata",
       {{"name", object_name(storage_class, room)},
        {"namespace", world.name_space},
        {"labels",
         {{kDriverLabel, drivers::csi_driver_name(backend.spec.kind)},
          {World::kManagedByLabel, World::kManagedBy},
          {engine::kBackendLabel, backend.spec.name}}},
        // Gone with its backend even if nobody runs to remove it.
        {"ownerReferences", Json::array({{{"apiVersion", kube::kStorageBackends.api_version()},
                                          {"kind", "StorageBackend"},
                                          {"name", backend.spec.name},
                                          {"uid", backend.uid}}})}}},
      {"storageClassName", storage_class},
      {"nodeTopology", node_topology(room)},
      {"capacity", base::format_quantity(room.capacity.available_bytes)},
  };
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
      // The same storage from everywhere: the first node that measured it speaks for all. A node that lacks
      // it gets no volume placed for its pods.
      for (const NodeView& node : nodes) {
        if (node.ready && node.capacity && segments.empty()) add({}, *node.capacity);
      }
      for (const NodeView& node : nodes) {
        if (!segments.empty() && node.known && !node.ready)
          segments.front().without_reach.push_back(node.hostname);
      }
      if (!segments.empty())
        std::sort(segments.front().without_reach.begin(), segments.front().without_reach.end());
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

absl::Status CapacityPublisher::publish(const base::Context& context, const engine::Backend& backend,
                                        const std::vector<SegmentCapacity>& segments, Settling& settling) {
  std::lock_guard lock(mutex_);
  std::set<std::string> wanted;
  for (const auto& storage_class : backend.spec.storage_classes) {
    for (const SegmentCapacity& room : segments) {
      const std::string name = object_name(storage_class.name, room);
      wanted.insert(name);
      const auto present = world_.capacities.get(kube::Key{world_.name_space, name}.to_string());
      const bool differs = present == nullptr || present->storage_class != storage_class.name ||
                           present->backend != backend.spec.name ||
                           present->node_topology != base::dump_json(node_topology(room)) ||
                           worth_publishing({.available_bytes = present->available_bytes,
                                             .maximum_volume_bytes = present->maximum_volume_bytes},
                                            room.capacity);
      // What is there as we wrote it is out of date by our own doing: volumes come and go.
      const auto ours = written_.find(name);
      const bool touched =
          ours != written_.end() && (present == nullptr || present->meta.resource_version != ours->second);
      const Change change = !differs ? Change::kNone : touched ? Change::kDrift : Change::kOurs;
      if (!settling.may_write(
              absl::StrCat("CSIStorageCapacity ", name), change,
              absl::StrCat("find who writes it (kubectl -n ", world_.name_space, " get csistoragecapacity ",
                           name, " -o yaml --show-managed-fields) and stop that"))) {
        continue;
      }
      // Server-side apply: the same call makes it and changes it.
      auto applied = world_.client.patch(context, kube::kCsiStorageCapacities, {world_.name_space, name},
                                         kube::PatchType::kApply,
                                         capacity_object(world_, backend, storage_class.name, room), {});
      if (!applied.ok())
        return base::annotate(applied.status(),
                              absl::StrCat("publish the capacity of class ", storage_class.name));
      written_[name] = base::get_string(*applied, "/metadata/resourceVersion");
      world_.capacities.observe(*applied);
    }
  }
  return remove_others(context, backend.spec.name, wanted);
}

absl::Status CapacityPublisher::remove_others(const base::Context& context, const std::string& backend,
                                              const std::set<std::string>& wanted) {
  for (const auto& present : world_.capacities.list()) {
    if (present->backend != backend || present->meta.deleting || wanted.contains(present->meta.name))
      continue;
    written_.erase(present->meta.name);
    COLLAGE_RETURN_IF_ERROR(world_.client.remove(context, kube::kCsiStorageCapacities, present->meta.key(),
                                                 {.uid = present->meta.uid}));
  }
  return absl::OkStatus();
}

absl::Status CapacityPublisher::remove(const base::Context& context, const std::string& backend) {
  std::lock_guard lock(mutex_);
  return remove_others(context, backend, {});
}

}  // namespace collage::reconcile
