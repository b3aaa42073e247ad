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

absl::Status keep_csi_driver(const base::Context& context, World& world, const drivers::Kind& kind,
                             Settling& settling) {
  const Json wanted = csi_driver_object(kind);
  const std::string name = drivers::csi_driver_name(kind.info.kind);
  const auto present = world.csi_drivers.get(name);
  Json change = Json::object();
  if (present != nullptr && present->spec != nullptr) {
    for (const char* fixed : {"attachRequired", "volumeLifecycleModes"}) {
      const Json* value = base::find(*present->spec, absl::StrCat("/", fixed));
      if (value == nullptr || *value == wanted["spec"][fixed]) continue;
      return absl::FailedPreconditionError(
          absl::StrCat("CSIDriver \"", name, "\" has spec.", fixed, " ", base::dump_json(*value),
                       ", which can never be changed and must be ", base::dump_json(wanted["spec"][fixed]),
                       "; delete that CSIDriver if no volume of it is in use, and it is made again"));
    }
    for (const auto& [field, value] : wanted["spec"].items()) {
      const Json* is = base::find(*present->spec, absl::StrCat("/", field));
      if (is == nullptr || *is != value) change[field] = value;
    }
  }
  const bool differs = present == nullptr || !change.empty();
  if (!settling.may_write(absl::StrCat("CSIDriver ", name), settling.change(differs),
                          absl::StrCat("find who writes it (kubectl get csidriver ", name,
                                       " -o yaml --show-managed-fields) and stop that"))) {
    return absl::OkStatus();
  }
  auto written = present == nullptr ? world.client.create(context, kube::kCsiDrivers, "", wanted)
                                    : world.client.patch(context, kube::kCsiDrivers, {"", name},
                                                         kube::PatchType::kMerge, {{"spec", change}}, {});
  // Another backend of the kind made it, or it went this moment: the watch brings it.
  if (absl::IsAlreadyExists(written.status()) || absl::IsNotFound(written.status())) return absl::OkStatus();
  if (!written.ok()) return base::annotate(written.status(), absl::StrCat("keep CSIDriver ", name));
  world.csi_drivers.observe(*written);
  base::log::info(context, present == nullptr ? "CSI driver made" : "CSI driver set right",
                  {{"driver", name}});
  return absl::OkStatus();
}

}  // namespace collage::reconcile
