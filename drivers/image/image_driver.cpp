#include "drivers/image/image_driver.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status.h"
#include "drivers/image/ownership.h"
#include "drivers/store/block.h"
#include "drivers/store/image_request.h"
#include "drivers/store/image_store.h"
#include "drivers/store/marker.h"

namespace collage::drivers {

namespace {

using base::Context;
using Need = StoreDirectory::Need;

constexpr char kKind[] = "image";
constexpr char kExample[] = "/srv/share";
constexpr size_t kLongestNode = 256;
// The publish context: the image below the directory, "<name>/image.0" or "<name>/image.<n>-<token>", the
// generation of the attachment, "true" or "false".
constexpr char kImage[] = "image";
constexpr char kGeneration[] = "generation";
constexpr char kReadOnly[] = "readOnly";

const DriverInfo& image_info() {
  static const DriverInfo* const info = new DriverInfo(image_file_info(DriverInfo{
      .kind = kKind,
      .description = "Image files in a directory that several nodes share, attached to one node at a time",
      .control = ControlPlace::kAnyNode,
      // The record of the holder is a lock, not a fence: what the old holder has open stays writable.
      .detach_fences = false,
      .tells_holders = true,
  }));
  return *info;
}

// Thread safe; keeps nothing but the identity of the share.
class ImageDriver : public Driver, private CapacityReporter, private Attacher {
 public:
  ImageDriver(const DriverConfig& config, std::string directory)
      : directory_(std::move(directory), config.node),
        store_(directory_),
        share_(directory_, config.backend, {.storage = "share", .remedy = "mount the share there"},
               config.system_id) {}

  const DriverInfo& info() const override { return image_info(); }
  CapacityReporter* capacity_reporter() override { return this; }
  Attacher* attacher() override { return this; }

  absl::StatusOr<ProbeResult> probe(const Context& context, const ProbeOptions& options) override {
    COLLAGE_RETURN_IF_ERROR(directory_.check(Need::kWrite));
    if (options.initialize && options.expected_system_id.empty() && share_.expected().empty()) {
      COLLAGE_RETURN_IF_ERROR(initialize(context));
    }
    COLLAGE_ASSIGN_OR_RETURN(std::string id, share_.verify(Need::kWrite, options.expected_system_id));
    tidy_up(context, store_, directory_);
    ProbeResult result{.system_id = std::move(id)};
    if (!options.cluster.id.empty()) {
      COLLAGE_ASSIGN_OR_RETURN(result.cluster_uids, register_cluster(directory_, options.cluster));
    }
    return result;
  }

  absl::StatusOr<Volume> create(const Context& context, const CreateRequest& request) override {
    COLLAGE_ASSIGN_OR_RETURN(const NewVolume wanted, image_request(info(), request));
    COLLAGE_RETURN_IF_ERROR(share_.verify(Need::kWrite).status());
    // A removal that was cut short comes first: what it left can be attached no more.
    COLLAGE_ASSIGN_OR_RETURN(const Owner owner, owner_of(wanted.name));
    if (owner.removing) COLLAGE_RETURN_IF_ERROR(remove(context, wanted.name));
    COLLAGE_ASSIGN_OR_RETURN(const StoredVolume volume, store_.create(context, wanted));
    return describe(volume);
  }

  absl::Status remove(const Context& context, const std::string& volume_id) override {
    if (!validate_volume_name(volume_id).ok()) return absl::OkStatus();
    COLLAGE_RETURN_IF_ERROR(share_.verify(Need::kWrite).status());
    return store_.remove(context, volume_id, [&](const std::string&) -> absl::Status {
      return ownership(volume_id).claim_removal();
    });
  }

  absl::StatusOr<std::optional<Volume>> find(const Context&, const std::string& name) override {
    if (!validate_volume_name(name).ok()) return std::nullopt;
    COLLAGE_RETURN_IF_ERROR(share_.verify(Need::kRead).status());
    COLLAGE_ASSIGN_OR_RETURN(const std::optional<StoredVolume> volume, store_.find(name));
    if (!volume.has_value()) return std::nullopt;
    return describe(*volume);
  }

  absl::StatusOr<Volume> inspect(const Context& context, const std::string& volume_id) override {
    COLLAGE_ASSIGN_OR_RETURN(const std::optional<Volume> volume, find(context, volume_id));
    if (!volume.has_value()) return no_volume(volume_id);
    return *volume;
  }

  absl::StatusOr<VolumePage> list(const Context& context, const std::string& token,
                                  int max_entries) override {
    COLLAGE_RETURN_IF_ERROR(share_.verify(Need::kRead).status());
    COLLAGE_ASSIGN_OR_RETURN(StoredPage stored, store_.list(context, token, max_entries));
    VolumePage page{.next_token = std::move(stored.next_token)};
    for (StoredVolume& entry : stored.volumes) {
      auto volume = describe(entry);
      if (!volume.ok()) {
        entry.problem = std::string(volume.status().message());
        volume = plain(entry);
      }
      page.volumes.push_back(*std::move(volume));
    }
    return page;
  }

  absl::StatusOr<Access> access(const std::string& volume_id, const StringMap&,
                                const StringMap& publish_context) const override {
    const auto image = publish_context.find(kImage);
    if (image == publish_context.end()) {
      return absl::FailedPreconditionError(
          absl::StrCat("volume ", volume_id, " is not attached: its publish context names no image"));
    }
    // Only ever a file of this very volume, whatever the context says.
    const std::string prefix = absl::StrCat(volume_id, "/");
    if (!validate_volume_name(volume_id).ok() || !absl::StartsWith(image->second, prefix) ||
        !image_generation(absl::string_view(image->second).substr(prefix.size())).has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("the publish context of volume ", volume_id,
                                                     " names the image \"", image->second,
                                                     "\", which is none of its own"));
    }
    return LoopFile{absl::StrCat(directory_.path(), "/", image->second)};
  }

  absl::StatusOr<StringMap> attach(const Context&, const std::string& volume_id, const std::string& node_id,
                                   const VolumeCapability& capability, bool read_only) override {
    COLLAGE_RETURN_IF_ERROR(validate_node(node_id));
    COLLAGE_RETURN_IF_ERROR(validate_capability(info(), capability));
    COLLAGE_ASSIGN_OR_RETURN(const std::optional<Volume> volume, find(Context(), volume_id));
    if (!volume.has_value()) return no_volume(volume_id);
    auto owner = ownership(volume_id).take(node_id, read_only);
    if (absl::IsNotFound(owner.status())) return no_volume(volume_id);  // removed this moment
    COLLAGE_RETURN_IF_ERROR(owner.status());
    return StringMap{{kImage, absl::StrCat(volume_id, "/", owner->image)},
                     {kGeneration, absl::StrCat(owner->generation)},
                     {kReadOnly, owner->read_only ? "true" : "false"}};
  }

  absl::Status detach(const Context&, const std::string& volume_id, const std::string& node_id) override {
    if (!validate_volume_name(volume_id).ok()) return absl::OkStatus();
    COLLAGE_RETURN_IF_ERROR(share_.verify(Need::kWrite).status());
    absl::Status released = ownership(volume_id).release(node_id);
    return absl::IsNotFound(released) ? absl::OkStatus() : released;
  }

  absl::Status fence(const Context&, const std::string& volume_id, const std::string& node_id) override {
    if (!validate_volume_name(volume_id).ok()) return absl::OkStatus();
    COLLAGE_RETURN_IF_ERROR(share_.verify(Need::kWrite).status());
    absl::Status fenced = ownership(volume_id).fence(node_id);
    return absl::IsNotFound(fenced) ? absl::OkStatus() : fenced;
  }

  // A directory knows no machines.
  absl::StatusOr<std::string> proof_of_absence(const Context&, const std::string&) override {
    return std::string();
  }

  absl::StatusOr<Capacity> capacity(const Context&, const StringMap& parameters, const Topology&) override {
    COLLAGE_RETURN_IF_ERROR(allocation_of(info(), parameters).status());
    COLLAGE_RETURN_IF_ERROR(share_.verify(Need::kRead).status());
    return capacity_of(info(), store_);
  }

 private:
  static absl::Status validate_node(const std::string& node_id) {
    const bool control =
        std::any_of(node_id.begin(), node_id.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
    if (!node_id.empty() && node_id.size() <= kLongestNode && !control) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("node id: must be 1 to ", kLongestNode,
                                                   " characters, none of them a control character"));
  }

  // Writes the marker where there is none. A directory with volumes and no marker has lost it: giving it
  // another id would cut the volumes off from their backend.
  absl::Status initialize(const Context& context) {
    auto found = read_marker(directory_);
    if (!absl::IsNotFound(found.status())) return found.status();
    COLLAGE_ASSIGN_OR_RETURN(const StoredPage volumes, store_.list(context, "", 1));
    if (!volumes.volumes.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(directory_.describe(), " holds volumes, such as ", volumes.volumes.front().name,
                       ", but no marker file ", kMarkerFile,
                       ": put it back (one line: the id of the share), or choose an empty directory"));
    }
    return make_marker(directory_).status();
  }

  Ownership ownership(const std::string& name) const {
    return Ownership(directory_, name, store_.volume_path(name));
  }

  absl::StatusOr<Owner> owner_of(const std::string& name) const {
    auto owner = ownership(name).current();
    if (absl::IsNotFound(owner.status())) return Owner{};
    return owner;
  }

  absl::Status no_volume(const std::string& volume_id) const {
    return absl::NotFoundError(absl::StrCat("no volume ", volume_id, " in ", directory_.describe()));
  }

  static Volume plain(const StoredVolume& stored) {
    return Volume{.id = stored.name,
                  .name = stored.name,
                  .capacity_bytes = stored.capacity_bytes,
                  .tags = stored.tags,
                  .problem = stored.problem};
  }

  absl::StatusOr<Volume> describe(const StoredVolume& stored) const {
    Volume volume = plain(stored);
    COLLAGE_ASSIGN_OR_RETURN(const Owner owner, owner_of(stored.name));
    if (owner.held()) volume.attached_to = owner.node;
    return volume;
  }

  const StoreDirectory directory_;
  ImageStore store_;
  Marker share_;
};

absl::Status validate(const base::Json& block) {
  return directory_of_block(kKind, kExample, block).status();
}

absl::StatusOr<std::unique_ptr<Driver>> make(const DriverConfig& config) {
  COLLAGE_ASSIGN_OR_RETURN(std::string directory, directory_of_block(kKind, kExample, *config.block));
  return std::make_unique<ImageDriver>(config, std::move(directory));
}

}  // namespace

Kind image_kind() {
  return Kind{
      .info = image_info(), .attaches = true, .reports_capacity = true, .validate = validate, .make = make};
}

}  // namespace collage::drivers
