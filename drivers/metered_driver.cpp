#include "drivers/metered_driver.h"

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "base/metrics.h"
#include "base/secret.h"
#include "base/status.h"

namespace collage::drivers {
namespace {

using base::Context;

const absl::Status& status_of(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& status_of(const absl::StatusOr<T>& result) {
  return result.status();
}

// Thread safe when the driver is.
class MeteredDriver final : public Driver, private Attacher, private CapacityReporter {
 public:
  MeteredDriver(std::unique_ptr<Driver> driver, base::Secrets secrets)
      : driver_(std::move(driver)),
        csi_driver_(csi_driver_name(driver_->info().kind)),
        secrets_(std::move(secrets)) {}

  const DriverInfo& info() const override { return driver_->info(); }
  Attacher* attacher() override { return driver_->attacher() == nullptr ? nullptr : this; }
  CapacityReporter* capacity_reporter() override {
    return driver_->capacity_reporter() == nullptr ? nullptr : this;
  }

  absl::StatusOr<ProbeResult> probe(const Context& context, const ProbeOptions& options) override {
    return measure("/csi.v1.Identity/Probe", [&] { return driver_->probe(context, options); });
  }
  absl::StatusOr<Volume> create(const Context& context, const CreateRequest& request) override {
    return measure("/csi.v1.Controller/CreateVolume", [&] { return driver_->create(context, request); });
  }
  absl::Status remove(const Context& context, const std::string& id) override {
    return measure("/csi.v1.Controller/DeleteVolume", [&] { return driver_->remove(context, id); });
  }
  absl::StatusOr<std::optional<Volume>> find(const Context& context, const std::string& name) override {
    return measure("/collage.storage/Find", [&] { return driver_->find(context, name); });
  }
  absl::StatusOr<Volume> inspect(const Context& context, const std::string& id) override {
    return measure("/csi.v1.Controller/ControllerGetVolume", [&] { return driver_->inspect(context, id); });
  }
  absl::StatusOr<VolumePage> list(const Context& context, const std::string& token,
                                  int max_entries) override {
    return measure("/csi.v1.Controller/ListVolumes",
                   [&] { return driver_->list(context, token, max_entries); });
  }
  absl::StatusOr<Access> access(const std::string& id, const StringMap& volume_context,
                                const StringMap& publish_context) const override {
    return driver_->access(id, volume_context, publish_context);
  }

 private:
  absl::StatusOr<StringMap> attach(const Context& context, const std::string& id, const std::string& node_id,
                                   const VolumeCapability& capability, bool read_only) override {
    return measure("/csi.v1.Controller/ControllerPublishVolume",
                   [&] { return driver_->attacher()->attach(context, id, node_id, capability, read_only); });
  }
  absl::Status detach(const Context& context, const std::string& id, const std::string& node_id) override {
    return measure("/csi.v1.Controller/ControllerUnpublishVolume",
                   [&] { return driver_->attacher()->detach(context, id, node_id); });
  }
  absl::Status fence(const Context& context, const std::string& id, const std::string& node_id) override {
    return measure("/collage.storage/Fence",
                   [&] { return driver_->attacher()->fence(context, id, node_id); });
  }
  absl::StatusOr<std::string> proof_of_absence(const Context& context, const std::string& node_id) override {
    return measure("/collage.storage/ProofOfAbsence",
                   [&] { return driver_->attacher()->proof_of_absence(context, node_id); });
  }
  absl::StatusOr<Capacity> capacity(const Context& context, const StringMap& parameters,
                                    const Topology& where) override {
    return measure("/csi.v1.Controller/GetCapacity",
                   [&] { return driver_->capacity_reporter()->capacity(context, parameters, where); });
  }

  template <typename Call>
  auto measure(std::string_view method, const Call& call) -> decltype(call()) {
    static const base::Histogram histogram("csi_plugin_operations_seconds",
                                           "Calls that a driver carried out, by method and final code.",
                                           {"driver_name", "method_name", "grpc_status_code", "migrated"});
    const auto begun = std::chrono::steady_clock::now();
    auto result = call();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    histogram.observe(took.count(),
                      {csi_driver_, method, base::grpc_code_name(status_of(result).code()), "false"});
    if (status_of(result).ok()) return result;
    return base::without_secrets(status_of(result), secrets_);
  }

  const std::unique_ptr<Driver> driver_;
  const std::string csi_driver_;
  const base::Secrets secrets_;
};

}  // namespace

std::unique_ptr<Driver> metered(std::unique_ptr<Driver> driver, base::Secrets secrets) {
  return std::make_unique<MeteredDriver>(std::move(driver), std::move(secrets));
}

absl::StatusOr<std::unique_ptr<Driver>> make_driver(const Kind& kind, const DriverConfig& config) {
  COLLAGE_ASSIGN_OR_RETURN(std::unique_ptr<Driver> driver, kind.make(config));
  return metered(std::move(driver), config.credentials);
}

}  // namespace collage::drivers
