#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "absl/status/status.h"

// What dashboards made for the sidecars read, under the same names, and what they lack.
namespace collage::reconcile::metrics {

// csi_sidecar_operations_seconds{driver_name,method_name,grpc_status_code,migrated}: calls of a driver.
// method: "/csi.v1.Controller/CreateVolume", ...
void driver_call(std::string_view csi_driver, std::string_view method, const absl::Status& status,
                 std::chrono::nanoseconds duration);

// controller_persistentvolumeclaim_provision_{total,failed_total,duration_seconds}{class,source}.
void provision_succeeded(std::string_view storage_class, std::chrono::nanoseconds duration);
void provision_failed(std::string_view storage_class);
// controller_persistentvolume_delete_{total,failed_total,duration_seconds}{class}.
void delete_succeeded(std::string_view storage_class, std::chrono::nanoseconds duration);
void delete_failed(std::string_view storage_class);

inline constexpr char kCreateVolume[] = "/csi.v1.Controller/CreateVolume";
inline constexpr char kDeleteVolume[] = "/csi.v1.Controller/DeleteVolume";
inline constexpr char kControllerPublishVolume[] = "/csi.v1.Controller/ControllerPublishVolume";
inline constexpr char kControllerUnpublishVolume[] = "/csi.v1.Controller/ControllerUnpublishVolume";

// Measures one call from construction to done().
class Call {
 public:
  Call(std::string csi_driver, std::string_view method)
      : csi_driver_(std::move(csi_driver)), method_(method), begun_(std::chrono::steady_clock::now()) {}
  std::chrono::nanoseconds done(const absl::Status& status) const;

 private:
  const std::string csi_driver_;
  const std::string_view method_;
  const std::chrono::steady_clock::time_point begun_;
};

}  // namespace collage::reconcile::metrics
