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

absl::StatusOr<Handle> parse_handle(const std::string& handle) {
  const size_t slash = handle.find('/');
  if (slash == 0 || slash == std::string::npos || slash + 1 == handle.size()) {
    return absl::InvalidArgumentError(absl::StrCat("volume_id: \"", handle, "\" must be <backend>/<id>"));
  }
  return Handle{handle.substr(0, slash), handle.substr(slash + 1)};
}

AgentImpl::AgentImpl(const AgentOptions& options, AgentParts parts)
    : options_(options),
      boot_id_(std::move(parts.boot_id)),
      mounter_(std::move(parts.mounter)),
      journal_(absl::StrCat(options.state_directory, "/volumes"), std::move(parts.journal_hook)),
      backends_(
          {options.node_name, options.kinds, parts.recheck, parts.probe_timeout}, [this] { tell_change(); },
          [this] { look_for_stale(); }) {}

AgentImpl::~AgentImpl() = default;

void AgentImpl::set_backends(std::vector<BackendConfig> backends) {
  backends_.set(std::move(backends));
  tell_kinds();
  tell_change();
}

absl::StatusOr<base::Json> AgentImpl::carry_out(const Context& context, const std::string& backend,
                                                drivers::Verb verb, const base::Json& arguments) {
  const std::optional<BackendTable::Backend> found = backends_.find(backend);
  if (!found.has_value())
    return absl::NotFoundError(absl::StrCat("node ", options_.node_name, " knows no backend ", backend));
  if (found->driver == nullptr)
    return absl::FailedPreconditionError(absl::StrCat("backend ", backend, ": ", found->message));
  if (found->hung) {
    return absl::UnavailableError(
        absl::StrCat("backend ", backend, " on node ", options_.node_name, ": ", found->message));
  }
  absl::StatusOr<base::Json> result = drivers::carry_out(context, *found->driver, verb, arguments);
  if (verb == drivers::Verb::kProbe && result.ok()) backends_.recheck();
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
    stale_.erase(record->second.staging_path);
    for (const auto& [target, publication] : record->second.publications) stale_.erase(target);
    records_.erase(record);
  }
  tell_kinds();
  tell_change();
}

void AgentImpl::set_stale(const std::string& path, bool stale) {
  {
    std::lock_guard lock(mutex_);
    if (stale ? !stale_.insert(path).second : stale_.erase(path) == 0) return;
  }
  tell_change();
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
        return entry.second.state == StageState::kStaged && !stale_.contains(entry.second.staging_path);
      }));
  status.mounts_stale = static_cast<int>(stale_.size());
  status.mounts_healed = healed_;
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

absl::StatusOr<std::unique_ptr<Agent>> make_agent(const AgentOptions& options) {
  if (options.node_name.empty()) return absl::InvalidArgumentError("node name: must be set");
  if (options.kinds == nullptr) return absl::InvalidArgumentError("kinds: must be set");
  COLLAGE_RETURN_IF_ERROR(check_path("state directory", options.state_directory));
  COLLAGE_ASSIGN_OR_RETURN(const std::string boot_id, base::read_file("/proc/sys/kernel/random/boot_id"));
  AgentParts parts;
  parts.boot_id = std::string(absl::StripAsciiWhitespace(boot_id));
  COLLAGE_ASSIGN_OR_RETURN(
      parts.mounter,
      mount::make_kernel_mounter(options.mount_helper, absl::StrCat(options.state_directory, "/locks")));
  return std::make_unique<AgentImpl>(options, std::move(parts));
}

}  // namespace collage::node
