#include "operator/reconcile/mount_health.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status.h"
#include "operator/engine/names.h"

namespace collage::reconcile {
namespace {

using base::Json;

constexpr char kAbnormal[] = "VolumeConditionAbnormal";
constexpr char kNormal[] = "VolumeConditionNormal";
constexpr char kMountLost[] = "MountLost";
constexpr std::chrono::seconds kMountsToStart{5};  // of a container, at most

const Json* array_at(const Json& object, const char* pointer) {
  const Json* found = base::find(object, pointer);
  return found != nullptr && found->is_array() ? found : nullptr;
}

kube::EventTarget pod_target(const AbnormalMount& mount) {
  return {kube::kPods.api_version(),
          std::string(kube::kPods.kind),
          mount.pod_namespace,
          mount.pod_name,
          mount.pod_uid,
          ""};
}

// The names under which the pod's volumes have this claim.
std::set<std::string> volumes_of_claim(const Json& pod, const std::string& claim) {
  std::set<std::string> names;
  const Json* volumes = array_at(pod, "/spec/volumes");
  if (volumes == nullptr) return names;
  for (const Json& volume : *volumes) {
    if (base::get_string(volume, "/persistentVolumeClaim/claimName") == claim)
      names.insert(base::get_string(volume, "/name"));
  }
  return names;
}

// The containers that mount this claim and do not see what the node mounts there later.
std::set<std::string> without_new_mounts(const Json& pod, const std::string& claim) {
  const std::set<std::string> names = volumes_of_claim(pod, claim);
  std::set<std::string> containers;
  const auto look = [&](const Json& container) {
    if (const Json* devices = array_at(container, "/volumeDevices"); devices != nullptr) {
      for (const Json& device : *devices) {
        if (names.contains(base::get_string(device, "/name"))) return true;
      }
    }
    const Json* mounts = array_at(container, "/volumeMounts");
    if (mounts == nullptr) return false;
    return std::any_of(mounts->begin(), mounts->end(), [&](const Json& mount) {
      const std::string propagation = base::get_string(mount, "/mountPropagation");
      return names.contains(base::get_string(mount, "/name")) && propagation != "HostToContainer" &&
             propagation != "Bidirectional";
    });
  };
  for (const char* kind : {"/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"}) {
    const Json* list = array_at(pod, kind);
    if (list == nullptr) continue;
    for (const Json& container : *list) {
      if (look(container)) containers.insert(base::get_string(container, "/name"));
    }
  }
  return containers;
}

// Or will be, if ever again. A start soon after the healing counts as one before it: the container's mounts
// may be older than its start, and who is blind writes into nothing.
bool started_since(const Json& status, base::Clock::Wall healed_at, Known known) {
  if (base::find(status, "/state/waiting") != nullptr || base::find(status, "/state/terminated") != nullptr)
    return true;
  if (healed_at == base::Clock::Wall{})
    return known == Known::kInherited && base::get_int(status, "/restartCount") > 0;
  const auto started = base::parse_rfc3339(base::get_string(status, "/state/running/startedAt"));
  return started > healed_at + kMountsToStart;
}

}  // namespace

std::vector<AbnormalMount> abnormal_mounts(const Json& storage_node) {
  std::vector<AbnormalMount> mounts;
  const Json* entries = array_at(storage_node, "/status/mounts/abnormal");
  if (entries == nullptr) return mounts;
  for (const Json& entry : *entries) {
    mounts.push_back({base::get_string(entry, "/volume"), base::get_string(entry, "/path"),
                      base::get_string(entry, "/reason"), base::get_string(entry, "/message"),
                      base::get_bool(entry, "/healed"), base::get_string(entry, "/pod/namespace"),
                      base::get_string(entry, "/pod/name"), base::get_string(entry, "/pod/uid"),
                      base::parse_rfc3339(base::get_string(entry, "/healedAt"))});
  }
  return mounts;
}

bool sees_new_mounts(const Json& pod, const std::string& claim) {
  return without_new_mounts(pod, claim).empty();
}

bool still_blind(const Json& pod, const std::string& claim, base::Clock::Wall healed_at, Known known) {
  std::set<std::string> blind = without_new_mounts(pod, claim);
  for (const char* kind :
       {"/status/containerStatuses", "/status/initContainerStatuses", "/status/ephemeralContainerStatuses"}) {
    const Json* statuses = array_at(pod, kind);
    if (statuses == nullptr) continue;
    for (const Json& status : *statuses) {
      if (started_since(status, healed_at, known)) blind.erase(base::get_string(status, "/name"));
    }
  }
  return !blind.empty();
}

struct MountHealth::Subject {
  std::shared_ptr<const kube::Volume> volume;      // nullptr: there is no such volume
  std::shared_ptr<const engine::Backend> backend;  // nullptr: not in use
};

MountHealth::MountHealth(World& world)
    : world_(world), controller_("mount-health", 1, [this](const base::Context& c, const std::string& key) {
        return reconcile(c, key);
      }) {
  world_.storage_nodes.add_handler([this](const auto& before, const auto& after) {
    const auto mounts = [](const auto& object) {
      return object ? abnormal_mounts(*object->json) : std::vector<AbnormalMount>{};
    };
    if (mounts(before) != mounts(after)) controller_.enqueue((after ? after : before)->meta.name);
  });
}

void MountHealth::start(const base::Context& context) {
  for (const auto& object : world_.storage_nodes.list()) {
    std::vector<AbnormalMount> healed = abnormal_mounts(*object->json);
    std::erase_if(healed, [](const AbnormalMount& mount) { return !mount.healed; });
    if (healed.empty()) continue;
    std::lock_guard lock(mutex_);
    inherited_[object->meta.name] = std::move(healed);
  }
  controller_.start(context);
}

Known MountHealth::how_known(const std::string& node, const AbnormalMount& mount) const {
  std::lock_guard lock(mutex_);
  const auto found = inherited_.find(node);
  if (found == inherited_.end()) return Known::kSeen;
  return std::find(found->second.begin(), found->second.end(), mount) == found->second.end()
             ? Known::kSeen
             : Known::kInherited;
}

kube::Outcome MountHealth::reconcile(const base::Context& context, const std::string& node) {
  const auto object = world_.storage_nodes.get(node);
  std::map<std::string, AbnormalMount> now, before;
  if (object) {
    for (AbnormalMount& mount : abnormal_mounts(*object->json)) now.emplace(mount.path, std::move(mount));
  }
  {
    std::lock_guard lock(mutex_);
    before = told_[node];
  }
  absl::Status status;
  for (const auto& [path, mount] : now) {
    const auto known = before.find(path);
    if (known != before.end() && known->second == mount) continue;
    const absl::Status told = tell(context, node, mount);
    status.Update(told);
    if (told.ok()) before.insert_or_assign(path, mount);
  }
  for (auto known = before.begin(); known != before.end();) {
    if (now.contains(known->first)) {
      ++known;
      continue;
    }
    tell_well(node, known->second);
    known = before.erase(known);
  }
  {
    std::lock_guard lock(mutex_);
    if (before.empty()) {
      told_.erase(node);
    } else {
      told_[node] = std::move(before);
    }
    if (status.ok()) inherited_.erase(node);
  }
  if (!status.ok()) return kube::Retry{status};
  return kube::Done{};
}

MountHealth::Subject MountHealth::subject_of(const AbnormalMount& mount) const {
  const auto handle = drivers::parse_handle(mount.volume);
  if (!handle.ok()) return {};
  for (auto& volume : world_.volumes.by_index(World::kByBackend, handle->backend)) {
    if (volume->handle == mount.volume) return {volume, world_.backends.get(handle->backend)};
  }
  return {};
}

absl::Status MountHealth::tell(const base::Context& context, const std::string& node,
                               const AbnormalMount& mount) {
  const Subject subject = subject_of(mount);
  if (subject.volume == nullptr) return absl::OkStatus();
  const kube::Volume& volume = *subject.volume;
  const std::string message =
      absl::StrCat("volume ", volume.meta.name, " on node ", node, ": ", mount.message);
  const kube::Key claim{volume.claim_namespace.str(), volume.claim_name};
  const Known known = how_known(node, mount);
  if (!volume.claim_name.empty() && known == Known::kSeen) {
    world_.events.event(
        {kube::kPersistentVolumeClaims.api_version(), std::string(kube::kPersistentVolumeClaims.kind),
         claim.name_space, claim.name, volume.claim_uid, ""},
        kube::EventType::kWarning, kAbnormal, message);
  }
  const bool of_claim = !mount.pod_uid.empty() && mount.pod_namespace == claim.name_space;
  if (!of_claim) return absl::OkStatus();
  if (known == Known::kSeen)
    world_.events.event(pod_target(mount), kube::EventType::kWarning, kAbnormal, message);
  const bool deletes = subject.backend != nullptr && subject.backend->spec.on_mount_lost == "DeletePod";
  if (!deletes || mount.reason != kMountLost) return absl::OkStatus();
  return pod_lost_mount(context, node, mount, subject, known);
}

// Crash after the deletion: the pod is gone, or its uid is another's, the next time.
absl::Status MountHealth::pod_lost_mount(const base::Context& context, const std::string& node,
                                         const AbnormalMount& mount, const Subject& subject, Known known) {
  const kube::Key key{mount.pod_namespace, mount.pod_name};
  const std::string& backend = subject.backend->spec.name;
  const auto forbidden = [&](const absl::Status& status) {
    if (!absl::IsPermissionDenied(status)) return status;
    world_.events.event(
        pod_target(mount), kube::EventType::kWarning, kMountLost,
        absl::StrCat("the pod is not deleted, though spec.onMountLost of StorageBackend ", backend,
                     " is DeletePod: the operator may not; set rbac.deletePods=true in the chart, or delete "
                     "the pod by hand"));
    return absl::OkStatus();
  };
  const auto pod = world_.client.get(context, kube::kPods, key);
  if (absl::IsNotFound(pod.status())) return absl::OkStatus();
  if (!pod.ok()) return forbidden(pod.status());
  const std::string& claim = subject.volume->claim_name;
  const bool is_it = base::get_string(*pod, "/metadata/uid") == mount.pod_uid &&
                     base::get_string(*pod, "/spec/nodeName") == node &&
                     !volumes_of_claim(*pod, claim).empty();
  if (!is_it) return absl::OkStatus();
  if (mount.healed && !still_blind(*pod, claim, mount.healed_at, known)) {
    if (known == Known::kInherited) return absl::OkStatus();
    world_.events.event(pod_target(mount), kube::EventType::kNormal, kNormal,
                        absl::StrCat("volume ", subject.volume->meta.name,
                                     ": the mount was made again, and the pod sees it"));
    return absl::OkStatus();
  }
  const absl::Status removed = world_.client.remove(context, kube::kPods, key, {.uid = mount.pod_uid});
  if (!removed.ok()) return forbidden(removed);
  world_.events.event(pod_target(mount), kube::EventType::kWarning, kMountLost,
                      absl::StrCat("volume ", subject.volume->meta.name,
                                   ": the pod is deleted, since its mount was lost and ",
                                   "spec.onMountLost of StorageBackend ", backend, " is DeletePod"));
  base::log::warning(context, "a pod whose mount was lost is deleted",
                     {{"pod", absl::StrCat(key.name_space, "/", key.name)},
                      {"node", node},
                      {"volume", subject.volume->meta.name}});
  return absl::OkStatus();
}

void MountHealth::tell_well(const std::string& node, const AbnormalMount& mount) {
  const Subject subject = subject_of(mount);
  if (subject.volume == nullptr || subject.volume->claim_name.empty()) return;
  world_.events.event(
      {kube::kPersistentVolumeClaims.api_version(), std::string(kube::kPersistentVolumeClaims.kind),
       subject.volume->claim_namespace.str(), subject.volume->claim_name, subject.volume->claim_uid, ""},
      kube::EventType::kNormal, kNormal,
      absl::StrCat("volume ", subject.volume->meta.name, " on node ", node, ": nothing is wrong any more at ",
                   mount.path));
}

}  // namespace collage::reconcile
