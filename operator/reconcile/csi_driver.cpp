#include "operator/reconcile/csi_driver.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status.h"

namespace collage::reconcile {

using base::Json;

Json csi_driver_object(const drivers::Kind& kind) {
  const bool formatted_here = !kind.info.fs_types.empty();
  return {
      {"apiVersion", kube::kCsiDrivers.api_version()},
      {"kind", "CSIDriver"},
      {"metadata",
       {{"name", drivers::csi_driver_name(kind.info.kind)},
        {"labels", {{"app.kubernetes.io/managed-by", "collage"}}}}},
      {"spec",
       {{"attachRequired", kind.attaches},
        // So that a node can name the pod whose mount is lost, without reading any.
        {"podInfoOnMount", true},
        // A file system of one volume may be chowned for the pod; a share that many use may not.
        {"fsGroupPolicy", formatted_here ? "File" : "None"},
        {"storageCapacity", true},
        {"requiresRepublish", false},
        {"seLinuxMount", formatted_here},
        {"volumeLifecycleModes", Json::array({"Persistent"})}}},
  };
}

absl::Status keep_csi_driver(const base::Context& context, kube::Client& client, const drivers::Kind& kind) {
  const Json wanted = csi_driver_object(kind);
  const std::string name = drivers::csi_driver_name(kind.info.kind);
  auto present = client.get(context, kube::kCsiDrivers, {"", name});
  if (absl::IsNotFound(present.status())) {
    auto created = client.create(context, kube::kCsiDrivers, "", wanted);
    if (created.ok()) base::log::info(context, "CSI driver made", {{"driver", name}});
    return created.ok() || absl::IsAlreadyExists(created.status()) ? absl::OkStatus() : created.status();
  }
  if (!present.ok()) return present.status();
  for (const char* fixed : {"attachRequired", "volumeLifecycleModes"}) {
    const Json* value = base::find(*present, absl::StrCat("/spec/", fixed));
    if (value == nullptr || *value == wanted["spec"][fixed]) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("CSIDriver \"", name, "\" has spec.", fixed, " ", base::dump_json(*value),
                     ", which can never be changed and must be ", base::dump_json(wanted["spec"][fixed]),
                     "; delete that CSIDriver if no volume of it is in use, and it is made again"));
  }
  Json change = Json::object();
  for (const auto& [field, value] : wanted["spec"].items()) {
    const Json* is = base::find(*present, absl::StrCat("/spec/", field));
    if (is == nullptr || *is != value) change[field] = value;
  }
  if (change.empty()) return absl::OkStatus();
  auto patched =
      client.patch(context, kube::kCsiDrivers, {"", name}, kube::PatchType::kMerge, {{"spec", change}}, {});
  return patched.ok() ? absl::OkStatus()
                      : base::annotate(patched.status(), absl::StrCat("keep CSIDriver ", name));
}

}  // namespace collage::reconcile
