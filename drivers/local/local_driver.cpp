#include "drivers/local/local_driver.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status.h"
#include "drivers/local/loop_use.h"
#include "drivers/store/block.h"
#include "drivers/store/image_request.h"
#include "drivers/store/image_store.h"
#include "drivers/store/marker.h"

namespace collage::drivers {

namespace {

using base::Context;
using Need = StoreDirectory::Need;

constexpr char kKind[] = "local";
constexpr char kExample[] = "/var/lib/collage/volumes";

const DriverInfo& local_info() {
  static const DriverInfo* const info = new DriverInfo(image_file_info(DriverInfo{
      .kind = kKind,
      .description = "Image files in a directory of one node",
      .control = ControlPlace::kOwnerNode,
  }));
  return *info;
}

// Thread safe; keeps nothing but the identity of the directory.
class LocalDriver : public Driver, private CapacityReporter {
 public:
  LocalDriver(const DriverConfig& config, std::string directory)
      : directory_(std::move(directory), config.node),
        store_(directory_),
        marker_(directory_, config.backend,
                {.storage = "storage",
                 .remedy = "mount its disk there; if that disk is lost for good with its volumes, write the "
                           "expected id into that file"}),
        accessible_{{node_topology_key(kKind), config.node}} {}

  const DriverInfo& info() const override { return local_info(); }
  CapacityReporter* capacity_reporter() override { return this; }

  absl::StatusOr<ProbeResult> probe(const Context& context, const ProbeOptions& options) override {
    COLLAGE_RETURN_IF_ERROR(directory_.check(Need::kWrite));
    // Volumes that are there already were made before directories had markers.
    if (options.initialize && options.expected_system_id.empty() && marker_.expected().empty() &&
        absl::IsNotFound(read_marker(directory_).status())) {
      COLLAGE_RETURN_IF_ERROR(make_marker(directory_).status());
    }
    COLLAGE_ASSIGN_OR_RETURN(std::string id, marker_.verify(Need::kWrite, options.expected_system_id));
    tidy_up(context, store_, directory_);
    return ProbeResult{.system_id = std::move(id)};
  }

  absl::StatusOr<Volume> create(const Context& context, const CreateRequest& request) override {
    COLLAGE_ASSIGN_OR_RETURN(const NewVolume wanted, image_request(info(), request));
    COLLAGE_RETURN_IF_ERROR(check_topology(request));
    COLLAGE_RETURN_IF_ERROR(marker_.verify(Need::kWrite).status());
    COLLAGE_ASSIGN_OR_RETURN(const StoredVolume volume, store_.create(context, wanted));
    return describe(volume);
  }

  absl::Status remove(const Context& context, const std::string& volume_id) override {
    auto name = name_of(volume_id);
    if (absl::IsNotFound(name.status())) return absl::OkStatus();
    COLLAGE_RETURN_IF_ERROR(name.status());
    COLLAGE_RETURN_IF_ERROR(marker_.verify(Need::kWrite).status());
    return store_.remove(context, *name, [&](const std::string& path) -> absl::Status {
      // Nothing detaches a local volume, so this is the only sign that a pod still has it.
      const std::string device = loop_device_of(path);
      if (device.empty()) return absl::OkStatus();
      return absl::FailedPreconditionError(
          absl::StrCat("volume ", volume_id, " is in use by ", device, " on ", directory_.node()));
    });
  }

  absl::StatusOr<std::optional<Volume>> find(const Context&, const std::string& name) override {
    if (!validate_volume_name(name).ok()) return std::nullopt;
    COLLAGE_RETURN_IF_ERROR(marker_.verify(Need::kRead).status());
    COLLAGE_ASSIGN_OR_RETURN(const std::optional<StoredVolume> volume, store_.find(name));
    if (!volume.has_value()) return std::nullopt;
    return describe(*volume);
  }

  absl::StatusOr<Volume> inspect(const Context& context, const std::string& volume_id) override {
    COLLAGE_ASSIGN_OR_RETURN(const std::string name, name_of(volume_id));
    COLLAGE_ASSIGN_OR_RETURN(const std::optional<Volume> volume, find(context, name));
    if (!volume.has_value())
      return absl::NotFoundError(absl::StrCat("no volume ", volume_id, " in ", directory_.describe()));
    return *volume;
  }

  absl::StatusOr<VolumePage> list(const Context& context, const std::string& token,
                                  int max_entries) override {
    COLLAGE_RETURN_IF_ERROR(marker_.verify(Need::kRead).status());
    COLLAGE_ASSIGN_OR_RETURN(StoredPage stored, store_.list(context, token, max_entries));
    VolumePage page{.next_token = std::move(stored.next_token)};
    for (const StoredVolume& volume : stored.volumes) page.volumes.push_back(describe(volume));
    return page;
  }

  absl::StatusOr<Access> access(const std::string& volume_id, const StringMap&,
                                const StringMap&) const override {
    COLLAGE_ASSIGN_OR_RETURN(const std::string name, name_of(volume_id));
    return LoopFile{absl::StrCat(store_.volume_path(name), "/", kFirstImage)};
  }

  absl::StatusOr<Capacity> capacity(const Context&, const StringMap& parameters,
                                    const Topology& where) override {
    COLLAGE_RETURN_IF_ERROR(allocation_of(info(), parameters).status());
    if (!where.empty() && !reaches(where)) return Capacity{};
    COLLAGE_RETURN_IF_ERROR(marker_.verify(Need::kRead).status());
    return capacity_of(info(), store_);
  }

 private:
  bool reaches(const Topology& topology) const {
    const auto found = topology.find(accessible_.begin()->first);
    return found != topology.end() && found->second == directory_.node();
  }

  // The directory is on this node alone, so no other term can be met.
  absl::Status check_topology(const CreateRequest& request) const {
    for (const Topology& topology : request.requisite) {
      if (reaches(topology)) return absl::OkStatus();
    }
    if (request.requisite.empty()) return absl::OkStatus();
    return absl::ResourceExhaustedError(absl::StrCat("volume ", request.name, " must not be on ",
                                                     directory_.node(),
                                                     ": its topology asks for other nodes"));
  }

  // NOT_FOUND for what can be no volume of any node, FAILED_PRECONDITION for one of another node: asking here
  // cannot tell.
  absl::StatusOr<std::string> name_of(const std::string& volume_id) const {
    const size_t slash = volume_id.find('/');
    if (slash == std::string::npos || slash == 0 || !validate_volume_name(volume_id.substr(slash + 1)).ok()) {
      return absl::NotFoundError(
          absl::StrCat("no volume ", volume_id, ": ids of kind local are <node>/<name>"));
    }
    if (volume_id.substr(0, slash) != directory_.node()) {
      return absl::FailedPreconditionError(
          absl::StrCat("volume ", volume_id, " is not on ", directory_.node(), ": ask its own node"));
    }
    return volume_id.substr(slash + 1);
  }

  Volume describe(const StoredVolume& stored) const {
    return Volume{.id = absl::StrCat(directory_.node(), "/", stored.name),
                  .name = stored.name,
                  .capacity_bytes = stored.capacity_bytes,
                  .accessible = {accessible_},
                  .tags = stored.tags,
                  .problem = stored.problem};
  }

  const StoreDirectory directory_;
  ImageStore store_;
  Marker marker_;
  const Topology accessible_;
};

absl::Status validate(const base::Json& block) {
  return directory_of_block(kKind, kExample, block).status();
}

absl::StatusOr<std::unique_ptr<Driver>> make(const DriverConfig& config) {
  COLLAGE_ASSIGN_OR_RETURN(std::string directory, directory_of_block(kKind, kExample, *config.block));
  if (config.node.empty() || config.node.find('/') != std::string::npos) {
    return absl::InvalidArgumentError("a driver of kind local acts on one node, and needs its name");
  }
  return std::make_unique<LocalDriver>(config, std::move(directory));
}

}  // namespace

Kind local_kind() {
  return Kind{
      .info = local_info(), .attaches = false, .reports_capacity = true, .validate = validate, .make = make};
}

}  // namespace collage::drivers
