#include "unit/testing/fake_driver.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace collage::testing {

using base::Context;
using drivers::AccessMode;
using drivers::StringMap;
using drivers::Verb;
using drivers::Volume;

drivers::DriverInfo fake_info() {
  drivers::DriverInfo info;
  info.kind = "fake";
  info.description = "Volumes in the memory of a test";
  info.access_modes = {AccessMode::kSingleNodeWriter, AccessMode::kSingleNodeReaderOnly,
                       AccessMode::kSingleNodeSingleWriter, AccessMode::kSingleNodeMultiWriter};
  info.volume_modes = {drivers::VolumeMode::kFilesystem, drivers::VolumeMode::kBlock};
  info.fs_types = {"ext4", "xfs"};
  info.parameters = {"speed"};
  info.granularity_bytes = 1 << 20;
  info.tells_holders = true;
  return info;
}

FakeDriver::FakeDriver(FakeDriverOptions options) : options_(std::move(options)) {}

// ---- Faults and counters

void FakeDriver::before(Hook hook) {
  std::lock_guard lock(mutex_);
  before_ = std::move(hook);
}

void FakeDriver::after(Hook hook) {
  std::lock_guard lock(mutex_);
  after_ = std::move(hook);
}

void FakeDriver::fail_before(Verb verb, absl::Status status, int times) {
  std::lock_guard lock(mutex_);
  for (int i = 0; i < times; ++i) faults_.push_back({verb, false, status});
}

void FakeDriver::fail_after(Verb verb, absl::Status status, int times) {
  std::lock_guard lock(mutex_);
  for (int i = 0; i < times; ++i) faults_.push_back({verb, true, status});
}

// Of the first fault told for the verb: one that is for "after" is not taken "before".
absl::Status FakeDriver::fault(Verb verb, bool after) {
  std::lock_guard lock(mutex_);
  const auto found =
      std::find_if(faults_.begin(), faults_.end(), [&](const Fault& one) { return one.verb == verb; });
  if (found == faults_.end() || found->after != after) return absl::OkStatus();
  absl::Status status = std::move(found->status);
  faults_.erase(found);
  return status;
}

absl::Status FakeDriver::enter(const Context& context, Verb verb, const std::string& what) {
  Hook hook;
  {
    std::lock_guard lock(mutex_);
    ++calls_[verb];
    hook = before_;
  }
  COLLAGE_RETURN_IF_ERROR(context.status());
  if (hook) COLLAGE_RETURN_IF_ERROR(hook(context, verb, what));
  return fault(verb, false);
}

absl::Status FakeDriver::leave(const Context& context, Verb verb, const std::string& what) {
  Hook hook;
  {
    std::lock_guard lock(mutex_);
    hook = after_;
  }
  if (hook) COLLAGE_RETURN_IF_ERROR(hook(context, verb, what));
  return fault(verb, true);
}

int FakeDriver::calls(Verb verb) const {
  std::lock_guard lock(mutex_);
  const auto found = calls_.find(verb);
  return found == calls_.end() ? 0 : found->second;
}

std::vector<drivers::CreateRequest> FakeDriver::create_requests() const {
  std::lock_guard lock(mutex_);
  return requests_;
}

std::map<std::string, Volume> FakeDriver::volumes() const {
  std::lock_guard lock(mutex_);
  return volumes_;
}

void FakeDriver::put(Volume volume) {
  std::lock_guard lock(mutex_);
  volumes_[volume.id] = std::move(volume);
}

void FakeDriver::write(const std::string& id, const std::string& content) {
  std::lock_guard lock(mutex_);
  if (volumes_.contains(id)) contents_[id] = content;
}

std::string FakeDriver::read(const std::string& id) const {
  std::lock_guard lock(mutex_);
  const auto found = contents_.find(id);
  return found == contents_.end() ? "" : found->second;
}

void FakeDriver::erase(const std::string& id) {
  std::lock_guard lock(mutex_);
  volumes_.erase(id);
}

std::string FakeDriver::system_id() const {
  std::lock_guard lock(mutex_);
  return options_.system_id;
}

void FakeDriver::set_system_id(const std::string& id) {
  std::lock_guard lock(mutex_);
  options_.system_id = id;
}

void FakeDriver::register_other(const drivers::ClusterIdentity& cluster) {
  std::lock_guard lock(mutex_);
  clusters_.push_back(cluster);
}

// ---- The port

std::string FakeDriver::id_of(const std::string& name) const {
  return absl::StrCat(options_.node.empty() ? "vol-" : options_.node + "/", name);
}

int64_t FakeDriver::used() const {
  int64_t sum = 0;
  for (const auto& [id, volume] : volumes_) sum += volume.capacity_bytes;
  return sum;
}

absl::StatusOr<drivers::ProbeResult> FakeDriver::probe(const Context& context, const ProbeOptions& options) {
  COLLAGE_RETURN_IF_ERROR(enter(context, Verb::kProbe, ""));
  std::string id;
  {
    std::lock_guard lock(mutex_);
    if (options_.system_id.empty() && !options.initialize) return absl::FailedPreconditionError("no marker");
    if (options_.system_id.empty())
      options_.system_id = absl::StrCat("fake-", reinterpret_cast<uintptr_t>(this));
    id = options_.system_id;
  }
  if (!options.expected_system_id.empty() && options.expected_system_id != id) {
    return absl::FailedPreconditionError(
        absl::StrCat("the system is ", id, ", not ", options.expected_system_id));
  }
  COLLAGE_RETURN_IF_ERROR(leave(context, Verb::kProbe, ""));
  drivers::ProbeResult result{.system_id = id};
  if (options.cluster.id.empty()) return result;
  std::lock_guard lock(mutex_);
  if (std::find(clusters_.begin(), clusters_.end(), options.cluster) == clusters_.end())
    clusters_.push_back(options.cluster);
  for (const auto& cluster : clusters_) {
    if (cluster.id == options.cluster.id) result.cluster_uids.push_back(cluster.uid);
  }
  return result;
}

absl::StatusOr<Volume> FakeDriver::create_locked(const drivers::CreateRequest& request) {
  COLLAGE_ASSIGN_OR_RETURN(const int64_t size, drivers::volume_size(options_.info, request));
  std::lock_guard lock(mutex_);
  const std::string id = id_of(request.name);
  if (const auto found = volumes_.find(id); found != volumes_.end()) {
    if (found->second.capacity_bytes == size) return found->second;
    return absl::AlreadyExistsError(
        absl::StrCat(request.name, " exists with ", found->second.capacity_bytes, " bytes"));
  }
  if (used() + size > options_.total_bytes) return absl::ResourceExhaustedError("no room");
  Volume volume{.id = id,
                .name = request.name,
                .capacity_bytes = size,
                .context = {{"made-by", "fake"}},
                .tags = request.tags};
  if (!options_.node.empty())
    volume.accessible = {{{drivers::node_topology_key(options_.info.kind), options_.node}}};
  volumes_[id] = volume;
  return volume;
}

absl::StatusOr<Volume> FakeDriver::create(const Context& context, const drivers::CreateRequest& request) {
  {
    std::lock_guard lock(mutex_);
    requests_.push_back(request);
  }
  COLLAGE_RETURN_IF_ERROR(enter(context, Verb::kCreate, request.name));
  COLLAGE_RETURN_IF_ERROR(drivers::validate_create(options_.info, request));
  COLLAGE_ASSIGN_OR_RETURN(Volume volume, create_locked(request));
  COLLAGE_RETURN_IF_ERROR(leave(context, Verb::kCreate, request.name));
  return volume;
}

absl::Status FakeDriver::remove(const Context& context, const std::string& volume_id) {
  COLLAGE_RETURN_IF_ERROR(enter(context, Verb::kRemove, volume_id));
  {
    std::lock_guard lock(mutex_);
    const auto found = volumes_.find(volume_id);
    if (found != volumes_.end() && !found->second.attached_to.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(volume_id, " is attached to ", found->second.attached_to));
    }
    if (found != volumes_.end()) volumes_.erase(found);
    contents_.erase(volume_id);
  }
  return leave(context, Verb::kRemove, volume_id);
}

absl::StatusOr<std::optional<Volume>> FakeDriver::find(const Context& context, const std::string& name) {
  COLLAGE_RETURN_IF_ERROR(enter(context, Verb::kFind, name));
  COLLAGE_RETURN_IF_ERROR(leave(context, Verb::kFind, name));
  std::lock_guard lock(mutex_);
  const auto found = volumes_.find(id_of(name));
  if (found == volumes_.end()) return std::nullopt;
  return found->second;
}

absl::StatusOr<Volume> FakeDriver::inspect(const Context& context, const std::string& volume_id) {
  COLLAGE_RETURN_IF_ERROR(enter(context, Verb::kInspect, volume_id));
  COLLAGE_RETURN_IF_ERROR(leave(context, Verb::kInspect, volume_id));
  std::lock_guard lock(mutex_);
  const auto found = volumes_.find(volume_id);
  if (found == volumes_.end()) return absl::NotFoundError(absl::StrCat("no volume ", volume_id));
  return found->second;
}

// The token is the last id of the page before.
absl::StatusOr<drivers::VolumePage> FakeDriver::list(const Context& context, const std::string& token,
                                                     int max_entries) {
  COLLAGE_RETURN_IF_ERROR(enter(context, Verb::kList, ""));
  COLLAGE_RETURN_IF_ERROR(leave(context, Verb::kList, ""));
  std::lock_guard lock(mutex_);
  drivers::VolumePage page;
  for (auto at = volumes_.upper_bound(token); at != volumes_.end(); ++at) {
    if (max_entries > 0 && page.volumes.size() == static_cast<size_t>(max_entries)) {
      page.next_token = page.volumes.back().id;
      break;
    }
    page.volumes.push_back(at->second);
  }
  return page;
}

absl::StatusOr<drivers::Access> FakeDriver::access(const std::string& volume_id, const StringMap&,
                                                   const StringMap&) const {
  return drivers::BlockDevice{.serial = volume_id};
}

absl::StatusOr<StringMap> FakeDriver::attach(const Context& context, const std::string& volume_id,
                                             const std::string& node_id, const drivers::VolumeCapability&,
                                             bool) {
  COLLAGE_RETURN_IF_ERROR(enter(context, Verb::kAttach, volume_id));
  {
    std::lock_guard lock(mutex_);
    const auto found = volumes_.find(volume_id);
    if (found == volumes_.end()) return absl::NotFoundError(absl::StrCat("no volume ", volume_id));
    std::string& holder = found->second.attached_to;
    if (!holder.empty() && holder != node_id)
      return absl::FailedPreconditionError(absl::StrCat(volume_id, " is attached to ", holder));
    holder = node_id;
  }
  COLLAGE_RETURN_IF_ERROR(leave(context, Verb::kAttach, volume_id));
  return StringMap{{"device", volume_id}};
}

absl::Status FakeDriver::detach(const Context& context, const std::string& volume_id,
                                const std::string& node_id) {
  COLLAGE_RETURN_IF_ERROR(enter(context, Verb::kDetach, volume_id));
  {
    std::lock_guard lock(mutex_);
    const auto found = volumes_.find(volume_id);
    if (found != volumes_.end() && (node_id.empty() || found->second.attached_to == node_id))
      found->second.attached_to.clear();
  }
  return leave(context, Verb::kDetach, volume_id);
}

absl::Status FakeDriver::fence(const Context& context, const std::string& volume_id,
                               const std::string& node_id) {
  COLLAGE_RETURN_IF_ERROR(enter(context, Verb::kFence, volume_id));
  if (!can_fence_) return absl::UnimplementedError("this storage cannot fence");
  {
    std::lock_guard lock(mutex_);
    const auto found = volumes_.find(volume_id);
    if (found != volumes_.end() && found->second.attached_to == node_id) found->second.attached_to.clear();
  }
  return leave(context, Verb::kFence, volume_id);
}

absl::StatusOr<std::string> FakeDriver::proof_of_absence(const Context&, const std::string& node_id) {
  std::lock_guard lock(mutex_);
  const auto found = absence_.find(node_id);
  return found == absence_.end() ? "" : found->second;
}

absl::StatusOr<drivers::Capacity> FakeDriver::capacity(const Context& context, const StringMap&,
                                                       const drivers::Topology&) {
  COLLAGE_RETURN_IF_ERROR(enter(context, Verb::kCapacity, ""));
  COLLAGE_RETURN_IF_ERROR(leave(context, Verb::kCapacity, ""));
  std::lock_guard lock(mutex_);
  const int64_t available = options_.total_bytes - used();
  return drivers::Capacity{options_.total_bytes, available, available};
}

// ---- The kind

namespace {

std::mutex current_mutex;
std::shared_ptr<FakeDriver> current;

// What make() hands out: the shared fake under an owner of its own.
class Handle final : public drivers::Driver {
 public:
  explicit Handle(std::shared_ptr<FakeDriver> driver) : driver_(std::move(driver)) {}
  const drivers::DriverInfo& info() const override { return driver_->info(); }
  drivers::Attacher* attacher() override { return driver_->attacher(); }
  drivers::CapacityReporter* capacity_reporter() override { return driver_->capacity_reporter(); }
  absl::StatusOr<drivers::ProbeResult> probe(const Context& context, const ProbeOptions& options) override {
    return driver_->probe(context, options);
  }
  absl::StatusOr<Volume> create(const Context& context, const drivers::CreateRequest& request) override {
    return driver_->create(context, request);
  }
  absl::Status remove(const Context& context, const std::string& id) override {
    return driver_->remove(context, id);
  }
  absl::StatusOr<std::optional<Volume>> find(const Context& context, const std::string& name) override {
    return driver_->find(context, name);
  }
  absl::StatusOr<Volume> inspect(const Context& context, const std::string& id) override {
    return driver_->inspect(context, id);
  }
  absl::StatusOr<drivers::VolumePage> list(const Context& context, const std::string& token,
                                           int max) override {
    return driver_->list(context, token, max);
  }
  absl::StatusOr<drivers::Access> access(const std::string& id, const StringMap& volume,
                                         const StringMap& publish) const override {
    return driver_->access(id, volume, publish);
  }

 private:
  const std::shared_ptr<FakeDriver> driver_;
};

absl::Status validate(const base::Json& block) {
  if (!block.is_object()) return absl::InvalidArgumentError("spec.fake: must be an object");
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<drivers::Driver>> make(const drivers::DriverConfig&) {
  std::lock_guard lock(current_mutex);
  if (!current) return absl::FailedPreconditionError("the test has set no fake driver");
  return std::make_unique<Handle>(current);
}

}  // namespace

drivers::Kind fake_kind(const FakeDriverOptions& options) {
  drivers::Kind kind;
  kind.info = options.info;
  kind.attaches = options.attaches;
  kind.reports_capacity = options.reports_capacity;
  kind.validate = validate;
  kind.make = make;
  return kind;
}

void set_fake_driver(std::shared_ptr<FakeDriver> driver) {
  std::lock_guard lock(current_mutex);
  current = std::move(driver);
}

}  // namespace collage::testing
