#include "unit/node/node_fixture.h"

#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "base/status.h"

namespace collage::testing {
namespace {

using base::Context;
using drivers::AccessMode;

class StubDriver : public drivers::Driver {
 public:
  const drivers::DriverInfo& info() const override { return stub_kinds().front().info; }
  absl::StatusOr<drivers::ProbeResult> probe(const Context& context, const ProbeOptions& options) override {
    COLLAGE_RETURN_IF_ERROR(StubProbe::instance().probe(context, options));
    return drivers::ProbeResult{"stub-system"};
  }
  absl::StatusOr<drivers::Volume> create(const Context&, const drivers::CreateRequest& request) override {
    return drivers::Volume{.id = request.name, .name = request.name};
  }
  absl::Status remove(const Context&, const std::string&) override { return absl::OkStatus(); }
  absl::StatusOr<std::optional<drivers::Volume>> find(const Context&, const std::string&) override {
    return std::nullopt;
  }
  absl::StatusOr<drivers::Volume> inspect(const Context&, const std::string& id) override {
    return StubProbe::instance().inspect(id);
  }
  absl::StatusOr<drivers::VolumePage> list(const Context&, const std::string&, int) override {
    return drivers::VolumePage{};
  }
  absl::StatusOr<drivers::Access> access(const std::string& id, const drivers::StringMap&,
                                         const drivers::StringMap& publish_context) const override {
    if (publish_context.contains("refuse")) return absl::FailedPreconditionError("not attached here");
    return drivers::LoopFile{absl::StrCat("/images/", id, "/image.0")};
  }
};

drivers::Kind make_stub_kind() {
  drivers::Kind kind;
  kind.attaches = true;
  kind.info.kind = "stub";
  kind.info.control = drivers::ControlPlace::kOwnerNode;
  kind.info.access_modes = {AccessMode::kSingleNodeWriter, AccessMode::kSingleNodeReaderOnly,
                            AccessMode::kSingleNodeSingleWriter, AccessMode::kSingleNodeMultiWriter,
                            AccessMode::kMultiNodeReaderOnly};
  kind.info.volume_modes = {drivers::VolumeMode::kFilesystem, drivers::VolumeMode::kBlock};
  kind.info.fs_types = {"ext4", "xfs"};
  kind.validate = [](const base::Json&) { return absl::OkStatus(); };
  kind.make = [](const drivers::DriverConfig& config) -> absl::StatusOr<std::unique_ptr<drivers::Driver>> {
    if (config.block->contains("broken"))
      return absl::InvalidArgumentError("spec.stub.broken: must not be set");
    return std::make_unique<StubDriver>();
  };
  return kind;
}

}  // namespace

StubProbe& StubProbe::instance() {
  static auto* const probe = new StubProbe;  // probes that hang may outlive main()
  return *probe;
}

void StubProbe::answer(absl::Status status) {
  std::lock_guard lock(mutex_);
  hanging_ = false;
  status_ = std::move(status);
  changed_.notify_all();
}

void StubProbe::hold(const std::string& id, const std::string& node) {
  std::lock_guard lock(mutex_);
  holders_[id] = node;
}

void StubProbe::forget() {
  std::lock_guard lock(mutex_);
  holders_.clear();
}

absl::StatusOr<drivers::Volume> StubProbe::inspect(const std::string& id) {
  std::lock_guard lock(mutex_);
  const auto holder = holders_.find(id);
  if (holder == holders_.end()) return absl::NotFoundError("no volume " + id);
  return drivers::Volume{.id = id, .name = id, .capacity_bytes = 1000, .attached_to = holder->second};
}

void StubProbe::hang() {
  std::lock_guard lock(mutex_);
  hanging_ = true;
}

drivers::Driver::ProbeOptions StubProbe::last() {
  std::lock_guard lock(mutex_);
  return last_;
}

absl::Status StubProbe::probe(const Context&, const drivers::Driver::ProbeOptions& options) {
  std::unique_lock lock(mutex_);
  last_ = options;
  changed_.wait(lock, [this] { return !hanging_; });
  return status_;
}

const std::vector<drivers::Kind>& stub_kinds() {
  static const std::vector<drivers::Kind> kinds = {make_stub_kind()};
  return kinds;
}

NodeFixture::NodeFixture() {
  StubProbe::instance().answer(absl::OkStatus());
  StubProbe::instance().forget();
  StubProbe::instance().hold("v1", "node-a");
  capability.access_mode = AccessMode::kSingleNodeMultiWriter;
}

NodeFixture::~NodeFixture() {
  StubProbe::instance().answer(absl::OkStatus());
  agent.reset();
}

void NodeFixture::start() {
  agent.reset();
  node::AgentParts parts;
  parts.mounter = std::make_unique<FakeMounter>(kernel);
  parts.boot_id = boot_id;
  parts.journal_hook = [this](const std::string& path) {
    return journal_hook ? journal_hook(path) : absl::OkStatus();
  };
  parts.recheck = std::chrono::milliseconds(20);
  parts.probe_timeout = std::chrono::milliseconds(200);
  parts.settle = std::chrono::milliseconds(0);
  agent = std::make_unique<node::AgentImpl>(node::AgentOptions{.node_name = "node-a",
                                                               .state_directory = directory.path(),
                                                               .mount_helper = "",
                                                               .kinds = &stub_kinds()},
                                            std::move(parts));
  agent->on_change([this] {
    std::lock_guard lock(mutex_);
    changed_.notify_all();
  });
}

void NodeFixture::set_backends(bool present, const std::string& system_id) {
  std::vector<node::BackendConfig> backends;
  if (present)
    backends.push_back({"fast", "stub", std::make_shared<const base::Json>(base::Json::object()), system_id});
  agent->set_backends(std::move(backends));
}

node::BackendState NodeFixture::backend_state() {
  const node::NodeStatus status = agent->status();
  return status.backends.empty() ? node::BackendState{} : status.backends.front();
}

bool NodeFixture::wait_ready(bool ready) {
  return wait_status([&](const node::NodeStatus& status) {
    return !status.backends.empty() && status.backends.front().ready == ready &&
           status.backends.front().message != "its storage was not looked at yet";
  });
}

bool NodeFixture::wait_status(const std::function<bool(const node::NodeStatus&)>& wanted) {
  std::unique_lock lock(mutex_);
  // The change may come between the look and the wait: the agent calls without our lock.
  for (int i = 0; i < 1000; ++i) {
    if (wanted(agent->status())) return true;
    changed_.wait_for(lock, std::chrono::milliseconds(10));
  }
  return false;
}

node::StageRequest NodeFixture::staging_request() const {
  node::StageRequest request;
  request.handle = kVolume;
  request.staging_path = staging;
  request.capability = capability;
  return request;
}

node::PublishRequest NodeFixture::publish_request(const std::string& target, bool read_only) const {
  node::PublishRequest request;
  request.handle = kVolume;
  request.staging_path = staging;
  request.target_path = target;
  request.capability = capability;
  request.read_only = read_only;
  return request;
}

std::vector<std::string> NodeFixture::journal_files() const {
  const auto names = base::list_directory(directory / "volumes");
  return names.ok() ? *names : std::vector<std::string>{};
}

base::Json NodeFixture::journal_of(const std::string& handle) const {
  const node::Journal journal(directory / "volumes");
  const auto text = base::read_file(journal.path_of(handle));
  return text.ok() ? *base::parse_json(*text) : base::Json();
}

}  // namespace collage::testing
