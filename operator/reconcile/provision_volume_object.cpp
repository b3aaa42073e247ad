#include "operator/reconcile/provision_volume_object.h"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/quantity.h"
#include "base/status.h"
#include "drivers/driver.h"
#include "operator/engine/names.h"

namespace collage::reconcile {
namespace {

using base::Json;

// The call in a class's parameter, and the field of spec.csi that refers to its secret.
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kSecretFields = {{
    {"controller-publish", "controllerPublishSecretRef"},
    {"node-stage", "nodeStageSecretRef"},
    {"node-publish", "nodePublishSecretRef"},
    {"controller-expand", "controllerExpandSecretRef"},
    {"node-expand", "nodeExpandSecretRef"},
}};

Json node_affinity(const std::vector<drivers::Topology>& accessible) {
  Json terms = Json::array();
  for (const drivers::Topology& segment : accessible) {
    Json expressions = Json::array();
    for (const auto& [key, value] : segment) {
      expressions.push_back({{"key", key}, {"operator", "In"}, {"values", Json::array({value})}});
    }
    if (!expressions.empty()) terms.push_back({{"matchExpressions", std::move(expressions)}});
  }
  return terms;
}

Json csi_source(const VolumeObjectInput& input, const std::string& csi_driver) {
  Json csi = {{"driver", csi_driver},
              {"volumeHandle", drivers::volume_handle(input.backend, input.volume.id)}};
  if (!input.claim.block && !input.request.capabilities.empty() &&
      !input.request.capabilities.front().fs_type.empty()) {
    csi["fsType"] = input.request.capabilities.front().fs_type;
  }
  Json attributes = input.volume.context;
  attributes["storage.kubernetes.io/csiProvisionerIdentity"] = "collage";
  if (!input.system_id.empty()) attributes[engine::kSystemIdAttribute] = input.system_id;
  csi["volumeAttributes"] = std::move(attributes);
  for (const auto& [call, field] : kSecretFields) {
    const auto secret = input.secrets.find(std::string(call));
    if (secret == input.secrets.end()) continue;
    csi[std::string(field)] = {{"name", secret->second.name}, {"namespace", secret->second.name_space}};
  }
  if (!input.node_secret.empty() && !csi.contains("nodeStageSecretRef")) {
    csi["nodeStageSecretRef"] = {{"name", input.node_secret}, {"namespace", input.node_secret_namespace}};
  }
  return csi;
}

Json metadata(const VolumeObjectInput& input, const std::string& csi_driver, std::string_view policy) {
  engine::ClassParameters::SecretTemplate deletion;
  if (const auto found = input.secrets.find("provisioner"); found != input.secrets.end())
    deletion = found->second;
  Json finalizers = Json::array();
  // With Retain there is nothing of ours to wait for: the volume outlives its object.
  if (policy == "Delete") finalizers.push_back(engine::kProvisionerFinalizer);
  if (input.kind.attaches) finalizers.push_back(engine::attacher_finalizer(csi_driver));
  return {{"name", engine::volume_name(input.claim.meta.uid)},
          {"annotations",
           {{"pv.kubernetes.io/provisioned-by", csi_driver},
            {"volume.kubernetes.io/provisioner-deletion-secret-name", deletion.name},
            {"volume.kubernetes.io/provisioner-deletion-secret-namespace", deletion.name_space}}},
          {"finalizers", std::move(finalizers)}};
}

}  // namespace

absl::StatusOr<SecretRefs> resolve_secrets(const engine::ClassParameters& parameters,
                                           const engine::TemplateValues& values) {
  SecretRefs refs;
  for (const auto& [call, secret] : parameters.secrets) {
    auto resolved = engine::resolve_secret(secret, values);
    if (!resolved.ok()) {
      return base::annotate(resolved.status(), absl::StrCat("StorageClass parameter \"csi.storage.k8s.io/",
                                                            call, "-secret-name\""));
    }
    refs.emplace(call, *std::move(resolved));
  }
  return refs;
}

base::Json make_volume_object(const VolumeObjectInput& input) {
  const std::string csi_driver = drivers::csi_driver_name(input.kind.info.kind);
  const kube::Claim& claim = input.claim;
  const std::string policy =
      input.storage_class.reclaim_policy.empty() ? "Delete" : input.storage_class.reclaim_policy.str();
  Json modes = Json::array();
  for (const kube::Interned& mode : claim.access_modes) modes.push_back(mode.str());
  Json spec = {
      {"accessModes", std::move(modes)},
      {"volumeMode", claim.block ? "Block" : "Filesystem"},
      {"capacity", {{"storage", base::format_quantity(input.volume.capacity_bytes)}}},
      {"persistentVolumeReclaimPolicy", policy},
      {"storageClassName", claim.storage_class.str()},
      {"claimRef",
       {{"apiVersion", "v1"},
        {"kind", "PersistentVolumeClaim"},
        {"namespace", claim.meta.name_space.str()},
        {"name", claim.meta.name},
        {"uid", claim.meta.uid},
        {"resourceVersion", claim.meta.resource_version}}},
      {"csi", csi_source(input, csi_driver)},
  };
  if (!claim.block && !input.storage_class.mount_options.empty())
    spec["mountOptions"] = input.storage_class.mount_options;
  if (Json terms = node_affinity(input.volume.accessible); !terms.empty()) {
    spec["nodeAffinity"] = {{"required", {{"nodeSelectorTerms", std::move(terms)}}}};
  }
  return {{"apiVersion", "v1"},
          {"kind", "PersistentVolume"},
          {"metadata", metadata(input, csi_driver, policy)},
          {"spec", std::move(spec)}};
}

}  // namespace collage::reconcile
