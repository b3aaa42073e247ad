#include "operator/reconcile/volume_metrics.h"

#include "base/metrics.h"
#include "base/status.h"

namespace collage::reconcile::metrics {
namespace {

double seconds(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double>(duration).count();
}

struct Family {
  base::Counter total, failed;
  base::Histogram duration;
};

const Family& provisions() {
  static const Family family{{"controller_persistentvolumeclaim_provision_total",
                              "Claims that became a volume.",
                              {"class", "source"}},
                             {"controller_persistentvolumeclaim_provision_failed_total",
                              "Tries to make a volume that failed.",
                              {"class", "source"}},
                             {"controller_persistentvolumeclaim_provision_duration_seconds",
                              "From the first try to the PersistentVolume.",
                              {"class", "source"}}};
  return family;
}

const Family& deletes() {
  static const Family family{
      {"controller_persistentvolume_delete_total", "Volumes deleted.", {"class"}},
      {"controller_persistentvolume_delete_failed_total", "Tries to delete a volume that failed.", {"class"}},
      {"controller_persistentvolume_delete_duration_seconds",
       "From the call to the PersistentVolume's end.",
       {"class"}}};
  return family;
}

}  // namespace

void driver_call(std::string_view csi_driver, std::string_view method, const absl::Status& status,
                 std::chrono::nanoseconds duration) {
  static const base::Histogram histogram("csi_sidecar_operations_seconds",
                                         "Calls of a driver, by method and final code.",
                                         {"driver_name", "method_name", "grpc_status_code", "migrated"});
  histogram.observe(seconds(duration), {csi_driver, method, base::grpc_code_name(status.code()), "false"});
}

void provision_succeeded(std::string_view storage_class, std::chrono::nanoseconds duration) {
  provisions().total.add({storage_class, ""});
  provisions().duration.observe(seconds(duration), {storage_class, ""});
}

void provision_failed(std::string_view storage_class) {
  provisions().failed.add({storage_class, ""});
}

void delete_succeeded(std::string_view storage_class, std::chrono::nanoseconds duration) {
  deletes().total.add({storage_class});
  deletes().duration.observe(seconds(duration), {storage_class});
}

void delete_failed(std::string_view storage_class) {
  deletes().failed.add({storage_class});
}

std::chrono::nanoseconds Call::done(const absl::Status& status) const {
  const auto duration = std::chrono::steady_clock::now() - begun_;
  driver_call(csi_driver_, method_, status, duration);
  return duration;
}

}  // namespace collage::reconcile::metrics
