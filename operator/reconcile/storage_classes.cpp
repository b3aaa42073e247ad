#include "operator/reconcile/storage_classes.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status.h"
#include "operator/engine/names.h"

namespace collage::reconcile {
namespace {

using base::Json;

constexpr char kDefaultAnnotation[] = "storageclass.kubernetes.io/is-default-class";

std::map<std::string, std::string> class_parameters(const engine::BackendSpec& backend,
                                                    const engine::ClassSpec& wanted) {
  std::map<std::string, std::string> parameters = wanted.parameters;
  // The friendly spelling of the spec becomes the key that the field knows.
  if (auto found = parameters.find("fsType"); found != parameters.end()) {
    parameters["csi.storage.k8s.io/fstype"] = found->second;
    parameters.erase("fsType");
  }
  parameters[engine::kBackendParameter] = backend.name;
  return parameters;
}

const kube::StorageClass* other_default(const std::vector<std::shared_ptr<const kube::StorageClass>>& classes,
                                        const std::string& name) {
  for (const auto& present : classes) {
    if (present->is_default && present->meta.name != name && !present->meta.deleting) return present.get();
  }
  return nullptr;
}

absl::Status apply_class(const base::Context& context, World& world, const engine::BackendSpec& backend,
                         const engine::ClassSpec& wanted, const kube::StorageClass* present,
                         const kube::BackendObject& object, Settling& settling) {
  const Json desired = class_object(backend, wanted);
  const ClassStep step = decide_class(backend, wanted, present);
  const bool changes =
      step == ClassStep::kCreate || step == ClassStep::kUpdate || step == ClassStep::kRecreate;
  const bool may_write = settling.may_write(
      absl::StrCat("StorageClass ", wanted.name), settling.change(changes),
      absl::StrCat("find who writes it (kubectl get storageclass ", wanted.name,
                   " -o yaml --show-managed-fields), or take it out of spec.storageClasses"));
  if (changes && !may_write) return absl::OkStatus();
  switch (step) {
    case ClassStep::kNone:
      return absl::OkStatus();
    case ClassStep::kConflictForeign:
      return absl::AlreadyExistsError(absl::StrCat(
          "StorageClass \"", wanted.name, "\" of spec.storageClasses exists and is not kept by this backend",
          present->managed_by_backend.empty()
              ? ""
              : absl::StrCat(" (it belongs to StorageBackend \"", present->managed_by_backend, "\")"),
          "; it is left alone. Choose another name, or delete that class."));
    case ClassStep::kUpdate: {
      // Only the fields that may change: a server-side apply of all of them would be refused for the sake of
      // the others.
      COLLAGE_ASSIGN_OR_RETURN(
          Json updated,
          world.client.patch(context, kube::kStorageClasses, {"", wanted.name}, kube::PatchType::kMerge,
                             {{"metadata", desired["metadata"]},
                              {"mountOptions", desired["mountOptions"]},
                              {"allowVolumeExpansion", desired["allowVolumeExpansion"]}},
                             {}));
      world.classes.observe(updated);
      return absl::OkStatus();
    }
    case ClassStep::kRecreate:
      COLLAGE_RETURN_IF_ERROR(
          world.client.remove(context, kube::kStorageClasses, {"", wanted.name}, {.uid = present->meta.uid}));
      world.events.event(kube::event_target(object), kube::EventType::kNormal, "StorageClassRecreated",
                         absl::StrCat("StorageClass ", wanted.name,
                                      " was made again, since a field of it changed that cannot be changed "
                                      "in place; volumes are untouched"));
      [[fallthrough]];
    case ClassStep::kCreate: {
      COLLAGE_ASSIGN_OR_RETURN(Json created,
                               world.client.create(context, kube::kStorageClasses, "", desired));
      world.classes.observe(created);
      base::log::info(context, "storage class made", {{"class", wanted.name}});
      return absl::OkStatus();
    }
  }
  return absl::InternalError("unreachable");
}

}  // namespace

Json class_object(const engine::BackendSpec& backend, const engine::ClassSpec& wanted) {
  Json object = {
      {"apiVersion", kube::kStorageClasses.api_version()},
      {"kind", "StorageClass"},
      {"metadata",
       {{"name", wanted.name},
        {"labels", {{"app.kubernetes.io/managed-by", "collage"}, {engine::kBackendLabel, backend.name}}},
        {"annotations", {{kDefaultAnnotation, wanted.is_default ? "true" : "false"}}}}},
      {"provisioner", drivers::csi_driver_name(backend.kind)},
      {"parameters", class_parameters(backend, wanted)},
      {"reclaimPolicy", wanted.reclaim_policy},
      {"volumeBindingMode", wanted.binding_mode},
      {"mountOptions", wanted.mount_options},
      {"allowVolumeExpansion", wanted.allow_expansion},
  };
  return object;
}

ClassStep decide_class(const engine::BackendSpec& backend, const engine::ClassSpec& wanted,
                       const kube::StorageClass* present) {
  if (present == nullptr) return ClassStep::kCreate;
  if (present->managed_by_backend != backend.name) return ClassStep::kConflictForeign;
  if (present->meta.deleting) return ClassStep::kNone;
  if (present->provisioner != std::string_view(drivers::csi_driver_name(backend.kind)) ||
      present->parameters != class_parameters(backend, wanted) ||
      present->reclaim_policy != std::string_view(wanted.reclaim_policy) ||
      present->binding_mode != std::string_view(wanted.binding_mode)) {
    return ClassStep::kRecreate;
  }
  if (present->mount_options != wanted.mount_options || present->allow_expansion != wanted.allow_expansion ||
      present->is_default != wanted.is_default) {
    return ClassStep::kUpdate;
  }
  return ClassStep::kNone;
}

absl::Status keep_classes(const base::Context& context, World& world, const engine::BackendSpec& backend,
                          const kube::BackendObject& object, Settling& settling) {
  std::set<std::string> names;
  std::vector<std::string> conflicts;
  for (engine::ClassSpec wanted : backend.storage_classes) {
    names.insert(wanted.name);
    if (wanted.is_default) {
      if (const kube::StorageClass* other = other_default(world.classes.list(), wanted.name)) {
        conflicts.push_back(absl::StrCat("StorageClass \"", other->meta.name,
                                         "\" is the cluster's default already, so \"", wanted.name,
                                         "\" of spec.storageClasses is not made the default; set default: "
                                         "false there, or take the annotation ",
                                         kDefaultAnnotation, " off the other"));
        wanted.is_default = false;
      }
    }
    auto present = world.classes.get(wanted.name);
    absl::Status applied = apply_class(context, world, backend, wanted, present.get(), object, settling);
    if (absl::IsAlreadyExists(applied)) {
      conflicts.push_back(std::string(applied.message()));
    } else if (!applied.ok()) {
      return base::annotate(applied, absl::StrCat("keep StorageClass ", wanted.name));
    }
  }
  for (const auto& present : world.classes.list()) {
    if (present->managed_by_backend != backend.name || names.contains(present->meta.name) ||
        present->meta.deleting)
      continue;
    COLLAGE_RETURN_IF_ERROR(world.client.remove(context, kube::kStorageClasses, {"", present->meta.name},
                                                {.uid = present->meta.uid}));
    base::log::info(context, "storage class removed", {{"class", present->meta.name}});
  }
  if (!conflicts.empty()) return absl::AlreadyExistsError(absl::StrJoin(conflicts, "; "));
  return absl::OkStatus();
}

absl::Status remove_classes(const base::Context& context, World& world, const std::string& backend) {
  for (const auto& present : world.classes.list()) {
    if (present->managed_by_backend != backend || present->meta.deleting) continue;
    COLLAGE_RETURN_IF_ERROR(world.client.remove(context, kube::kStorageClasses, {"", present->meta.name},
                                                {.uid = present->meta.uid}));
  }
  return absl::OkStatus();
}

}  // namespace collage::reconcile
