#include "operator/node/agent.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "base/log.h"
#include "base/status.h"
#include "drivers/operation.h"
#include "operator/node/agent_impl.h"

namespace collage::node {

using base::Context;

absl::Status check_path(const std::string& field, const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError(absl::StrCat(field, ": must be set"));
  const std::string slashed = path + "/";
  if (path.front() != '/' || path == "/" || slashed.find("//") != std::string::npos ||
      slashed.find("/../") != std::string::npos || slashed.find("/./") != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": \"", path, "\" must be an absolute path in its shortest form"));
  }
  return absl::OkStatus();
}

absl::StatusOr<drivers::Handle> handle_of(const std::string& volume_id) {
  absl::StatusOr<drivers::Handle> handle = drivers::parse_handle(volume_id);
  if (!handle.ok()) return base::annotate(handle.status(), "volume_id");
  return handle;
}

namespace {

// The volume that a call changes, so that no two change it at once; "" for the others. The ids of volumes
// that belong to one node are "<node>/<name>": by the name alone create and remove of one volume meet.
std::string changed_volume(drivers::Verb verb, const base::Json& arguments) {
  using drivers::Verb;
  if (verb == Verb::kCreate) return base::get_string(arguments, "/name");
  if (verb != Verb::kRemove && verb != Verb::kAttach && verb != Verb::kDetach) return "";
  const std::string id = base::get_string(arguments, "/id");
  return id.substr(id.find_last_of('/') + 1);
}

// The operator knows no id of storage that belongs to one node: the node does.
base::Json own_probe(const BackendTable::Backend& backend) {
  return {{"initialize", backend.system_id.empty()}, {"expectedSystemID", backend.system_id}};
}

}  // namespace

AgentImpl::AgentImpl(const AgentOptions& options, AgentParts parts)
    : options_(options),
      boot_id_(std::move(parts.boot_id)),
      lock_(std::move(parts.lock)),
      mounter_(std::move(parts.mounter)),
      journal_(absl::StrCat(options.state_directory, "/volumes"), std::move(parts.journal_hook)),
      recheck_(parts.recheck),
      settle_(parts.settle),
      backends_({.node_name = options.node_name,
                 .records_directory = absl::StrCat(options.state_directory, "/backends"),
                 .kinds = options.kinds,
                 .recheck = parts.recheck,
                 .probe_timeout = parts.probe_timeout},
                [this] { tell_change(); }) {}

AgentImpl::~AgentImpl() = default;

void AgentImpl::set_backends(std::vector<BackendConfig> backends) {
  backends_.set(std::move(backends));
  tell_kinds();
  tell_change();
}

absl::StatusOr<base::Json> AgentImpl::carry_out(const Context& context, const std::string& backend,
                                                drivers::Verb verb, const base::Json& arguments) {
  if (verb == drivers::Verb::kHolds) return holds(context, backend, arguments);
  const std::optional<BackendTable::Backend> found = backends_.find(backend);
  // Nothing final where this node cannot look: NOT_FOUND would say that a volume is gone.
  if (!found.has_value())
    return absl::UnavailableError(absl::StrCat("node ", options_.node_name, " knows no backend ", backend));
  if (found->driver == nullptr)
    return absl::UnavailableError(absl::StrCat("backend ", backend, ": ", found->message));
  if (const std::string stuck = found->lane->stuck(); !stuck.empty()) return absl::UnavailableError(stuck);
  // A directory that is not the one it should be answers nothing, least of all that a volume is gone.
  if (found->owned() && !found->ready && verb != drivers::Verb::kProbe)
    return absl::UnavailableError(not_ready(*found).message());
  const base::Json asked = verb == drivers::Verb::kProbe && found->owned() ? own_probe(*found) : arguments;
  const std::string volume = changed_volume(verb, asked);
  absl::StatusOr<base::Json> result =
      found->lane->run(context, absl::StrCat(drivers::to_string(verb), volume.empty() ? "" : " ", volume),
                       volume, [driver = found->driver, verb, asked](const Context& c) {
                         return drivers::carry_out(c, *driver, verb, asked);
                       });
  // A refusal may mean that the storage is another one now, which the cluster should know at once.
  if (verb == drivers::Verb::kProbe || absl::IsFailedPrecondition(result.status()) ||
      !found->lane->stuck().empty()) {
    backends_.recheck();
  }
  // The id of this node's own storage is not the backend's.
  if (found->owned() && verb == drivers::Verb::kProbe && result.ok()) return base::Json::object();
  return result;
}

absl::StatusOr<VolumeLocks::Hold> AgentImpl::begin(const Context& context, const std::string& handle) {
  {
    std::lock_guard lock(mutex_);
    if (!recovered_)
      return absl::UnavailableError("the node agent has not compared its journal with the mount table yet");
  }
  return locks_.acquire(context, handle);
}

std::optional<VolumeRecord> AgentImpl::find_record(const std::string& handle) const {
  std::lock_guard lock(mutex_);
  const auto record = records_.find(handle);
  return record == records_.end() ? std::nullopt : std::optional(record->second);
}

absl::Status AgentImpl::save(const VolumeRecord& record) {
  COLLAGE_RETURN_IF_ERROR(journal_.write(record));
  bool known = false;
  {
    std::lock_guard lock(mutex_);
    known = !records_.insert_or_assign(record.handle, record).second;
  }
  if (!known) tell_kinds();
  tell_change();
  return absl::OkStatus();
}

// For the way back: unpublish and unstage go on with a disk that is full, since recovery finds out from the
// mount table.
absl::Status AgentImpl::save_if_possible(const Context& context, const VolumeRecord& record) {
  const absl::Status written = save(record);
  if (written.ok()) return written;
  base::log::warning(context, "the journal cannot be written; going on without",
                     {{"volume", record.handle}, {"error", written}});
  std::lock_guard lock(mutex_);
  records_.insert_or_assign(record.handle, record);
  return absl::OkStatus();
}

void AgentImpl::forget(const Context& context, const std::string& handle) {
  if (const absl::Status removed = journal_.remove(handle); !removed.ok()) {
    // What stays says that the volume was on its way out; the next recovery finishes that.
    base::log::warning(context, "a journal file cannot be removed", {{"volume", handle}, {"error", removed}});
  }
  {
    std::lock_guard lock(mutex_);
    const auto record = records_.find(handle);
    if (record == records_.end()) return;
    troubles_.erase(record->second.staging_path);
    witnessed_.erase(record->second.staging_path);
    for (const auto& [target, publication] : record->second.publications) troubles_.erase(target);
    records_.erase(record);
  }
  tell_kinds();
  tell_change();
}

void AgentImpl::set_trouble(const std::string& path, Trouble trouble) {
  {
    std::lock_guard lock(mutex_);
    const auto known = troubles_.find(path);
    if (trouble.reason.empty()) {
      if (known == troubles_.end()) return;
      troubles_.erase(known);
    } else {
      if (known != troubles_.end() && known->second == trouble) return;
      troubles_.insert_or_assign(path, std::move(trouble));
    }
  }
  tell_change();
}

void AgentImpl::witness(const std::string& path, bool there) {
  std::lock_guard lock(mutex_);
  if (there) {
    witnessed_.insert(path);
  } else {
    witnessed_.erase(path);
  }
}

std::vector<std::string> AgentImpl::kinds_wanted() const {
  const std::vector<std::string> configured = backends_.kinds();
  std::set<std::string> kinds(configured.begin(), configured.end());
  std::lock_guard lock(mutex_);
  for (const auto& [handle, record] : records_) {
    if (!record.kind.empty()) kinds.insert(record.kind);
  }
  for (const auto& [path, kind] : unjournaled_) kinds.insert(kind);
  return {kinds.begin(), kinds.end()};
}

const drivers::Kind* AgentImpl::find_kind(const std::string& name) const {
  for (const drivers::Kind& kind : *options_.kinds) {
    if (kind.info.kind == name) return &kind;
  }
  return nullptr;
}

void AgentImpl::set_kind_state(const NodeStatus::KindState& state) {
  {
    std::lock_guard lock(mutex_);
    NodeStatus::KindState& known = kind_states_[state.name];
    if (known == state) return;
    known = state;
  }
  tell_change();
}

NodeStatus AgentImpl::status() const {
  NodeStatus status;
  status.backends = backends_.states();
  const std::vector<std::string> wanted = kinds_wanted();
  std::lock_guard lock(mutex_);
  for (const std::string& kind : wanted) {
    const auto state = kind_states_.find(kind);
    status.kinds.push_back(state == kind_states_.end() ? NodeStatus::KindState{kind, false, "not served yet"}
                                                       : state->second);
  }
  status.mounts_held =
      static_cast<int>(std::count_if(records_.begin(), records_.end(), [&](const auto& entry) {
        return entry.second.state == StageState::kStaged && !troubles_.contains(entry.second.staging_path);
      }));
  status.mounts_stale = static_cast<int>(troubles_.size());
  status.mounts_healed = healed_;
  for (const auto& [handle, record] : records_) {
    const auto tell = [&, &volume = handle](const std::string& path, const Publication& publication) {
      const auto found = troubles_.find(path);
      const bool troubled = found != troubles_.end();
      if ((!troubled && !publication.lost) || status.abnormal.size() == NodeStatus::kMostAbnormal) return;
      status.abnormal.push_back({.volume = volume,
                                 .path = path,
                                 .reason = troubled ? found->second.reason : kMountLost,
                                 .message = troubled ? found->second.message : made_again(path),
                                 .healed = !troubled,
                                 .healed_at = troubled ? base::Clock::Wall{} : publication.healed_at,
                                 .pod = publication.pod});
    };
    tell(record.staging_path, {});
    for (const auto& [target, publication] : record.publications) tell(target, publication);
  }
  return status;
}

void AgentImpl::on_change(std::function<void()> changed) {
  std::lock_guard lock(callbacks_mutex_);
  changed_ = std::move(changed);
}

void AgentImpl::on_kinds_change(std::function<void()> changed) {
  std::lock_guard lock(callbacks_mutex_);
  kinds_changed_ = std::move(changed);
}

void AgentImpl::tell_change() {
  std::lock_guard lock(callbacks_mutex_);
  if (changed_) changed_();
}

void AgentImpl::tell_kinds() {
  std::lock_guard lock(callbacks_mutex_);
  if (kinds_changed_) kinds_changed_();
}

absl::Status AgentImpl::not_ready(const BackendTable::Backend& backend) const {
  return absl::FailedPreconditionError(absl::StrCat("backend ", backend.config.name, " is not ready on node ",
                                                    options_.node_name, ": ", backend.message));
}

namespace {

absl::Status state_problem(const AgentOptions& options, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat("the state directory ", options.state_directory,
                                   " cannot be used: ", std::string(status.message()),
                                   ": make it a writable directory, or name another (--state-directory, in "
                                   "the chart node.stateDirectory)"));
}

// One agent a state directory: two would each undo what the other does.
absl::StatusOr<base::FileLock> lock_state(const AgentOptions& options) {
  if (absl::Status made = base::make_directories(options.state_directory, 0700); !made.ok())
    return state_problem(options, made);
  absl::StatusOr<base::FileLock> lock =
      base::FileLock::acquire(absl::StrCat(options.state_directory, "/agent.lock"));
  if (absl::IsFailedPrecondition(lock.status())) {
    return absl::FailedPreconditionError(
        absl::StrCat("the state directory ", options.state_directory,
                     " is in use by another agent: ", std::string(lock.status().message()),
                     ": end it, or give this one a directory of its own (--state-directory)"));
  }
  if (!lock.ok()) return state_problem(options, lock.status());
  return lock;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Agent>> make_agent(const AgentOptions& options) {
  if (options.node_name.empty()) return absl::InvalidArgumentError("node name: must be set");
  if (options.kinds == nullptr) return absl::InvalidArgumentError("kinds: must be set");
  COLLAGE_RETURN_IF_ERROR(check_path("state directory", options.state_directory));
  COLLAGE_ASSIGN_OR_RETURN(const std::string boot_id, base::read_file("/proc/sys/kernel/random/boot_id"));
  AgentParts parts;
  parts.boot_id = std::string(absl::StripAsciiWhitespace(boot_id));
  COLLAGE_ASSIGN_OR_RETURN(parts.lock, lock_state(options));
  auto mounter =
      mount::make_kernel_mounter(options.mount_helper, absl::StrCat(options.state_directory, "/locks"));
  if (!mounter.ok()) return state_problem(options, mounter.status());
  parts.mounter = *std::move(mounter);
  return std::make_unique<AgentImpl>(options, std::move(parts));
}

}  // namespace collage::node
