#include "unit/drivers/storage.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status.h"
#include "drivers/codec.h"
#include "drivers/operation.h"
#include "unit/drivers/scratch.h"

namespace collage::testing {

namespace {

using base::Context;
using base::Json;
using namespace drivers;  // NOLINT: this file is a driver through and through

// The kinds that keep files: a directory.
class DirectoryStorage : public Storage {
 public:
  explicit DirectoryStorage(const Kind& kind) : kind_(kind), scratch_(kRoom) {}

  std::unique_ptr<Driver> driver(int number) override {
    const Json block = {{"directory", scratch_.path()}};
    auto driver = kind_.make({.backend = "conformance", .block = &block, .node = node_id(number)});
    if (!driver.ok()) return nullptr;
    if (!(*driver)->probe(Context(), {.initialize = true}).ok()) return nullptr;
    return *std::move(driver);
  }
  int64_t room_bytes() const override { return kRoom; }

 private:
  static constexpr int64_t kRoom = int64_t{1} << 30;
  const Kind& kind_;
  Scratch scratch_;
};

class OperationDriver : public Driver, private Attacher, private CapacityReporter {
 public:
  explicit OperationDriver(std::unique_ptr<Driver> driver) : driver_(std::move(driver)) {}

  const DriverInfo& info() const override { return driver_->info(); }
  Attacher* attacher() override { return driver_->attacher() == nullptr ? nullptr : this; }
  CapacityReporter* capacity_reporter() override {
    return driver_->capacity_reporter() == nullptr ? nullptr : this;
  }

  absl::StatusOr<ProbeResult> probe(const Context& context, const ProbeOptions& options) override {
    COLLAGE_ASSIGN_OR_RETURN(const Json result, call(context, Verb::kProbe,
                                                     {{"initialize", options.initialize},
                                                      {"expectedSystemID", options.expected_system_id}}));
    return ProbeResult{.system_id = base::get_string(result, "/systemID")};
  }
  absl::StatusOr<Volume> create(const Context& context, const CreateRequest& request) override {
    COLLAGE_ASSIGN_OR_RETURN(const Json result, call(context, Verb::kCreate, to_json(request)));
    return volume_from_json(result);
  }
  absl::Status remove(const Context& context, const std::string& volume_id) override {
    return call(context, Verb::kRemove, {{"id", volume_id}}).status();
  }
  absl::StatusOr<std::optional<Volume>> find(const Context& context, const std::string& name) override {
    COLLAGE_ASSIGN_OR_RETURN(const Json result, call(context, Verb::kFind, {{"name", name}}));
    if (result.is_null()) return std::nullopt;
    COLLAGE_ASSIGN_OR_RETURN(Volume volume, volume_from_json(result));
    return volume;
  }
  absl::StatusOr<Volume> inspect(const Context& context, const std::string& volume_id) override {
    COLLAGE_ASSIGN_OR_RETURN(const Json result, call(context, Verb::kInspect, {{"id", volume_id}}));
    return volume_from_json(result);
  }
  absl::StatusOr<VolumePage> list(const Context& context, const std::string& token,
                                  int max_entries) override {
    COLLAGE_ASSIGN_OR_RETURN(const Json result,
                             call(context, Verb::kList, {{"token", token}, {"max", max_entries}}));
    return volume_page_from_json(result);
  }
  absl::StatusOr<Access> access(const std::string& volume_id, const StringMap& volume_context,
                                const StringMap& publish_context) const override {
    return driver_->access(volume_id, volume_context, publish_context);
  }
  absl::StatusOr<StringMap> attach(const Context& context, const std::string& volume_id,
                                   const std::string& node_id, const VolumeCapability& capability,
                                   bool read_only) override {
    COLLAGE_ASSIGN_OR_RETURN(const Json result, call(context, Verb::kAttach,
                                                     {{"id", volume_id},
                                                      {"nodeID", node_id},
                                                      {"capability", to_json(capability)},
                                                      {"readOnly", read_only}}));
    return string_map_from_json(result.at("publishContext"));
  }
  absl::Status detach(const Context& context, const std::string& volume_id,
                      const std::string& node_id) override {
    return call(context, Verb::kDetach, {{"id", volume_id}, {"nodeID", node_id}}).status();
  }
  absl::Status fence(const Context& context, const std::string& volume_id,
                     const std::string& node_id) override {
    return call(context, Verb::kFence, {{"id", volume_id}, {"nodeID", node_id}}).status();
  }
  absl::StatusOr<std::string> proof_of_absence(const Context& context, const std::string& node_id) override {
    return driver_->attacher()->proof_of_absence(context, node_id);
  }
  absl::StatusOr<Capacity> capacity(const Context& context, const StringMap& parameters,
                                    const Topology& where) override {
    COLLAGE_ASSIGN_OR_RETURN(
        const Json result,
        call(context, Verb::kCapacity, {{"parameters", to_json(parameters)}, {"where", to_json(where)}}));
    return capacity_from_json(result);
  }

 private:
  absl::StatusOr<Json> call(const Context& context, Verb verb, const Json& arguments) {
    COLLAGE_ASSIGN_OR_RETURN(const Verb sent, verb_from_string(to_string(verb)));
    COLLAGE_ASSIGN_OR_RETURN(const Json received, base::parse_json(base::dump_json(arguments)));
    COLLAGE_ASSIGN_OR_RETURN(const Json result, carry_out(context, *driver_, sent, received));
    return base::parse_json(base::dump_json(result));
  }

  const std::unique_ptr<Driver> driver_;
};

}  // namespace

std::string Storage::node_id(int number) const {
  return absl::StrCat("node-", number);
}

std::unique_ptr<Storage> make_storage(const Kind& kind) {
  if (kind.info.kind == "local" || kind.info.kind == "image") return std::make_unique<DirectoryStorage>(kind);
  return nullptr;
}

CreateRequest a_request(const DriverInfo& info, const std::string& name) {
  CreateRequest request;
  request.name = name;
  request.required_bytes = info.minimum_bytes;
  VolumeCapability capability;
  capability.mode = info.volume_modes.front();
  capability.access_mode = info.access_modes.front();
  request.capabilities = {capability};
  request.tags = {{kTagCluster, "cluster-1"}, {kTagClaim, "default/data"}, {kTagVolume, name}};
  return request;
}

std::unique_ptr<Driver> through_operations(std::unique_ptr<Driver> driver) {
  return std::make_unique<OperationDriver>(std::move(driver));
}

template <typename T>
T LossyDriver::answer(T result) const {
  if (lose_) return absl::UnavailableError("the answer was lost");
  return result;
}

absl::StatusOr<ProbeResult> LossyDriver::probe(const Context& context, const ProbeOptions& options) {
  return answer(driver_.probe(context, options));
}
absl::StatusOr<Volume> LossyDriver::create(const Context& context, const CreateRequest& request) {
  return answer(driver_.create(context, request));
}
absl::Status LossyDriver::remove(const Context& context, const std::string& volume_id) {
  return answer(driver_.remove(context, volume_id));
}
absl::StatusOr<std::optional<Volume>> LossyDriver::find(const Context& context, const std::string& name) {
  return answer(driver_.find(context, name));
}
absl::StatusOr<Volume> LossyDriver::inspect(const Context& context, const std::string& volume_id) {
  return answer(driver_.inspect(context, volume_id));
}
absl::StatusOr<VolumePage> LossyDriver::list(const Context& context, const std::string& token,
                                             int max_entries) {
  return answer(driver_.list(context, token, max_entries));
}
absl::StatusOr<Access> LossyDriver::access(const std::string& volume_id, const StringMap& volume_context,
                                           const StringMap& publish_context) const {
  return driver_.access(volume_id, volume_context, publish_context);
}
absl::StatusOr<StringMap> LossyDriver::attach(const Context& context, const std::string& volume_id,
                                              const std::string& node_id, const VolumeCapability& capability,
                                              bool read_only) {
  return answer(driver_.attacher()->attach(context, volume_id, node_id, capability, read_only));
}
absl::Status LossyDriver::detach(const Context& context, const std::string& volume_id,
                                 const std::string& node_id) {
  return answer(driver_.attacher()->detach(context, volume_id, node_id));
}

absl::Status LossyDriver::fence(const Context& context, const std::string& volume_id,
                                const std::string& node_id) {
  return answer(driver_.attacher()->fence(context, volume_id, node_id));
}

absl::StatusOr<std::string> LossyDriver::proof_of_absence(const Context& context,
                                                          const std::string& node_id) {
  return answer(driver_.attacher()->proof_of_absence(context, node_id));
}

}  // namespace collage::testing
