#include "operator/engine/fenced_driver.h"

#include <utility>

#include "base/status.h"

namespace collage::engine {
namespace {

using base::Context;

class FencedDriver final : public drivers::Driver,
                           private drivers::Attacher,
                           private drivers::CapacityReporter {
 public:
  FencedDriver(std::shared_ptr<drivers::Driver> driver, std::function<absl::Status()> leads)
      : driver_(std::move(driver)), leads_(std::move(leads)) {}

  const drivers::DriverInfo& info() const override { return driver_->info(); }
  drivers::Attacher* attacher() override { return driver_->attacher() != nullptr ? this : nullptr; }
  drivers::CapacityReporter* capacity_reporter() override {
    return driver_->capacity_reporter() != nullptr ? this : nullptr;
  }

  absl::StatusOr<drivers::ProbeResult> probe(const Context& context, const ProbeOptions& options) override {
    return call(context, [&](const Context& guarded) { return driver_->probe(guarded, options); });
  }
  absl::StatusOr<drivers::Volume> create(const Context& context,
                                         const drivers::CreateRequest& request) override {
    return call(context, [&](const Context& guarded) { return driver_->create(guarded, request); });
  }
  absl::Status remove(const Context& context, const std::string& volume_id) override {
    return call(context, [&](const Context& guarded) { return driver_->remove(guarded, volume_id); });
  }
  absl::StatusOr<std::optional<drivers::Volume>> find(const Context& context,
                                                      const std::string& name) override {
    return call(context, [&](const Context& guarded) { return driver_->find(guarded, name); });
  }
  absl::StatusOr<drivers::Volume> inspect(const Context& context, const std::string& volume_id) override {
    return call(context, [&](const Context& guarded) { return driver_->inspect(guarded, volume_id); });
  }
  absl::StatusOr<drivers::VolumePage> list(const Context& context, const std::string& token,
                                           int max_entries) override {
    return call(context, [&](const Context& guarded) { return driver_->list(guarded, token, max_entries); });
  }
  absl::StatusOr<drivers::Access> access(const std::string& volume_id,
                                         const drivers::StringMap& volume_context,
                                         const drivers::StringMap& publish_context) const override {
    return driver_->access(volume_id, volume_context, publish_context);
  }

 private:
  absl::StatusOr<drivers::StringMap> attach(const Context& context, const std::string& volume_id,
                                            const std::string& node_id,
                                            const drivers::VolumeCapability& capability,
                                            bool read_only) override {
    return call(context, [&](const Context& guarded) {
      return driver_->attacher()->attach(guarded, volume_id, node_id, capability, read_only);
    });
  }
  absl::Status detach(const Context& context, const std::string& volume_id,
                      const std::string& node_id) override {
    return call(context, [&](const Context& guarded) {
      return driver_->attacher()->detach(guarded, volume_id, node_id);
    });
  }
  absl::Status fence(const Context& context, const std::string& volume_id,
                     const std::string& node_id) override {
    return call(context, [&](const Context& guarded) {
      return driver_->attacher()->fence(guarded, volume_id, node_id);
    });
  }
  absl::StatusOr<std::string> proof_of_absence(const Context& context, const std::string& node_id) override {
    return call(context, [&](const Context& guarded) {
      return driver_->attacher()->proof_of_absence(guarded, node_id);
    });
  }
  absl::StatusOr<drivers::Capacity> capacity(const Context& context, const drivers::StringMap& parameters,
                                             const drivers::Topology& where) override {
    return call(context, [&](const Context& guarded) {
      return driver_->capacity_reporter()->capacity(guarded, parameters, where);
    });
  }

  template <typename Call>
  auto call(const Context& context, const Call& call) -> decltype(call(context)) {
    const Context guarded = context.with_guard(leads_);
    COLLAGE_RETURN_IF_ERROR(guarded.status());
    return call(guarded);
  }

  const std::shared_ptr<drivers::Driver> driver_;
  const std::function<absl::Status()> leads_;
};

}  // namespace

std::shared_ptr<drivers::Driver> make_fenced_driver(std::shared_ptr<drivers::Driver> driver,
                                                    std::function<absl::Status()> leads) {
  return std::make_shared<FencedDriver>(std::move(driver), std::move(leads));
}

}  // namespace collage::engine
