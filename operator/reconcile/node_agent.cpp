#include "operator/reconcile/node_agent.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status.h"
#include "drivers/codec.h"
#include "operator/engine/backend_spec.h"
#include "operator/engine/operation_text.h"
#include "operator/reconcile/capacity.h"

namespace collage::reconcile {
namespace {

using base::Json;

constexpr auto kOperationTimeout = std::chrono::minutes(5);
constexpr size_t kThreads = 32;       // of one backend
constexpr size_t kMaxMessage = 4096;  // of an answer, in bytes
constexpr auto kMeasureEvery = std::chrono::seconds(30);
constexpr auto kMeasureTimeout = std::chrono::seconds(10);
constexpr char kRemedy[] =
    "where the operator accepts it, this agent is older: update the DaemonSet; else correct the "
    "StorageBackend";

kube::ReflectorOptions only(const std::string& name, kube::ReflectorOptions options) {
  options.selector.field_selector = absl::StrCat("metadata.name=", name);
  return options;
}

std::string boot_id() {
  auto text = base::read_file("/proc/sys/kernel/random/boot_id");
  return text.ok() ? std::string(absl::StripSuffix(*text, "\n")) : "";
}

// The volume that an operation works on: two on one volume never run at once. "" for those that work on none.
std::string subject_of(const std::string& backend, const Json& arguments) {
  std::string volume = base::get_string(arguments, "/id");
  if (volume.empty()) volume = base::get_string(arguments, "/name");
  // Ids of node-owned volumes are "<node>/<name>": the name alone makes create and remove of one volume meet.
  if (size_t slash = volume.rfind('/'); slash != std::string::npos) volume = volume.substr(slash + 1);
  return volume.empty() ? "" : absl::StrCat(backend, "/", volume);
}

Json state_json(const node::NodeStatus& state) {
  Json kinds = Json::array(), backends = Json::array(), abnormal = Json::array();
  for (const auto& mount : state.abnormal) {
    Json entry = {{"volume", mount.volume},
                  {"path", mount.path},
                  {"reason", mount.reason},
                  {"message", mount.message},
                  {"healed", mount.healed}};
    if (mount.healed && mount.healed_at != base::Clock::Wall{})
      entry["healedAt"] = base::rfc3339_micro(mount.healed_at);
    if (!mount.pod.name.empty())
      entry["pod"] = {{"namespace", mount.pod.name_space}, {"name", mount.pod.name}, {"uid", mount.pod.uid}};
    abnormal.push_back(std::move(entry));
  }
  for (const auto& kind : state.kinds) {
    kinds.push_back({{"name", kind.name}, {"registered", kind.registered}, {"message", kind.message}});
  }
  for (const auto& backend : state.backends) {
    backends.push_back({{"name", backend.name}, {"ready", backend.ready}, {"message", backend.message}});
  }
  return {{"kinds", kinds},
          {"backends", backends},
          {"mounts",
           {{"held", state.mounts_held},
            {"stale", state.mounts_stale},
            {"healed", state.mounts_healed},
            {"abnormal", abnormal}}}};
}

}  // namespace

NodeAgent::NodeAgent(kube::Client& client, node::Agent& agent, const std::vector<drivers::Kind>& kinds,
                     std::string node_name, std::string version, const kube::ReflectorOptions& watching)
    : client_(client),
      agent_(agent),
      kinds_(kinds),
      node_name_(std::move(node_name)),
      version_(std::move(version)),
      boot_id_(boot_id()),
      backends_(client, watching),
      self_(client, only(node_name_, watching)),
      commit_(std::chrono::milliseconds(200), std::chrono::seconds(2),
              [this](const base::Context& context) { return write_status(context); }) {
  backends_.add_handler([this](const auto& before, const auto& after) {
    // The operator's own status writes change nothing here, but for the storage system's identity.
    if (before && after && before->meta.generation == after->meta.generation &&
        base::get_string(*before->json, "/status/systemID") ==
            base::get_string(*after->json, "/status/systemID")) {
      return;
    }
    // Until the first list is whole a kind would seem to be gone.
    if (backends_.has_synced()) backends_changed();
  });
  self_.add_handler([this](const auto& before, const auto& after) {
    if (after && !(before && engine::same_list(*before->json, *after->json, engine::kOperations)))
      operations_changed(*after);
    // Made anew by somebody: what was written before is gone with the old one.
    if (!after || base::get_string(*after->json, "/status/agentVersion").empty()) {
      {
        std::lock_guard lock(mutex_);
        written_state_.clear();
        written_answers_.clear();
      }
      commit_.touch();
    }
  });
  agent_.on_change([this] {
    {
      std::lock_guard lock(mutex_);
      measure_soon_ = true;
    }
    measure_.notify_all();
    commit_.touch();
  });
}

NodeAgent::~NodeAgent() {
  stop();
}

void NodeAgent::start(const base::Context& context) {
  context_ = context;
  backends_.start(context);
  if (backends_.wait_synced(context).ok()) backends_changed();
  commit_.start(context);
  commit_.touch();
  self_.start(context);
  measurer_ = std::jthread([this, context](std::stop_token stop) {
    const base::Context mine = context.with_stop(stop);
    while (!mine.stopped()) {
      measure_capacities(mine);
      std::unique_lock lock(mutex_);
      measure_.wait_for(lock, stop, kMeasureEvery, [this] { return measure_soon_; });
      measure_soon_ = false;
    }
  });
}

void NodeAgent::stop() {
  agent_.on_change(nullptr);
  if (measurer_.joinable()) {
    measurer_.request_stop();
    measurer_.join();
  }
  self_.stop();
  backends_.stop();
  std::map<std::string, std::unique_ptr<base::Workers>> lanes;
  {
    std::lock_guard lock(mutex_);
    lanes.swap(lanes_);
    stopped_ = true;
  }
  lanes.clear();  // joins
  commit_.stop();
}

absl::Status NodeAgent::ready() const {
  if (!backends_.has_synced()) return absl::UnavailableError("the StorageBackends are not read yet");
  std::lock_guard lock(mutex_);
  if (written_state_.empty())
    return absl::UnavailableError(absl::StrCat("StorageNode ", node_name_, " is not written yet"));
  return absl::OkStatus();
}

void NodeAgent::backends_changed() {
  std::vector<node::BackendConfig> configs;
  std::map<std::string, std::string> unreadable;
  for (const auto& object : backends_.list()) {
    auto spec = engine::parse_backend_spec(*object->json, kinds_);
    if (!spec.ok()) {
      const std::string why(spec.status().message());
      unreadable[object->meta.name] = why;
      // Listed all the same: what the agent knows of its storage must outlive this.
      configs.push_back({.name = object->meta.name,
                         .unreadable = absl::StrCat(
                             "agent ", version_, " cannot read this StorageBackend: ", why, ": ", kRemedy)});
      continue;
    }
    std::lock_guard lock(mutex_);
    auto& block = blocks_[spec->name];
    if (!block || *block != *spec->block) block = spec->block;
    configs.push_back(
        {spec->name, spec->kind, block, base::get_string(*object->json, "/status/systemID"), ""});
  }
  std::sort(configs.begin(), configs.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  std::map<std::string, std::string> news;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [name, why] : unreadable) {
      const auto before = unreadable_.find(name);
      if (before == unreadable_.end() || before->second != why) news[name] = why;
      capacities_.erase(name);
    }
    unreadable_ = std::move(unreadable);
  }
  for (const auto& [name, why] : news) {
    base::log::warning(context_, "a StorageBackend cannot be read by this version of the agent",
                       {{"backend", name}, {"version", version_}, {"error", why}, {"remedy", kRemedy}});
  }
  agent_.set_backends(std::move(configs));
}

// What an earlier process of this agent has answered is not carried out again: whoever asked may have gone
// on, and what was done since would be undone.
void NodeAgent::take_over_answers(const Json& storage_node) {
  for (const Json& answer : engine::operations_in(storage_node, engine::kAnswers)) {
    const std::string id = base::get_string(answer, "/id");
    taken_.insert(id);
    answers_[id] = base::dump_json(answer);
  }
}

void NodeAgent::operations_changed(const kube::StorageNodeObject& object) {
  std::vector<Json> operations = engine::operations_in(*object.json, engine::kOperations);
  std::set<std::string> listed;
  std::vector<std::pair<std::string, Json>> fresh;
  {
    std::lock_guard lock(mutex_);
    if (!std::exchange(resumed_, true)) take_over_answers(*object.json);
    for (Json& operation : operations) {
      const std::string id = base::get_string(operation, "/id");
      listed.insert(id);
      if (taken_.insert(id).second) fresh.emplace_back(id, std::move(operation));
    }
    listed_ = listed;
    // What is no longer asked needs no answer; the status sheds it with its next write.
    const size_t before = answers_.size();
    std::erase_if(answers_, [&](const auto& entry) { return !listed.contains(entry.first); });
    std::erase_if(taken_, [&](const auto& id) { return !listed.contains(id); });
    if (answers_.size() != before) commit_.touch_later();
  }
  for (auto& [id, operation] : fresh) {
    const std::string backend = base::get_string(operation, "/backend");
    submit(backend, [this, id = id, operation = std::move(operation)] { carry_out(id, operation); });
  }
}

// A backend whose storage does not answer holds up nobody but itself.
void NodeAgent::submit(const std::string& backend, std::function<void()> work) {
  std::lock_guard lock(mutex_);
  if (stopped_) return;
  std::unique_ptr<base::Workers>& lane = lanes_[backend];
  if (lane == nullptr) lane = std::make_unique<base::Workers>("operations", kThreads);
  lane->submit(std::move(work));
}

void NodeAgent::carry_out(const std::string& id, const Json& operation) {
  const std::string backend = base::get_string(operation, "/backend");
  const auto verb = drivers::verb_from_string(base::get_string(operation, "/verb"));
  const Json* const told = base::find(operation, "/arguments");
  const Json arguments = told != nullptr ? *told : Json::object();
  const std::string subject = subject_of(backend, arguments);
  {
    std::unique_lock lock(mutex_);
    subject_free_.wait(lock,
                       [&] { return subject.empty() || !busy_.contains(subject) || context_.stopped(); });
    if (context_.stopped()) return;  // the operator asks again
    // Nobody waits for it, and what was asked since may have undone it: begun now, it would leave a volume
    // behind.
    if (!listed_.contains(id)) return;
    if (!subject.empty()) busy_.insert(subject);
  }
  const base::Context context =
      context_.with_field("operation", id).with_field("backend", backend).with_timeout(kOperationTimeout);
  absl::StatusOr<Json> result = absl::InternalError("not run");
  if (!verb.ok()) {
    result = verb.status();
  } else {
    result = agent_.carry_out(context, backend, *verb, arguments);
  }
  Json answer = {{"id", id}, {"code", absl::StatusCodeToString(result.status().code())}};
  if (result.ok()) {
    // What tells nothing (nothing found, nothing to say) is left out.
    if (result->is_object() && !result->empty()) answer["result"] = *std::move(result);
  } else {
    answer["message"] = result.status().message().substr(0, kMaxMessage);
  }
  std::string text = base::dump_json(answer);
  if (text.size() > engine::kMaxOperationText) {
    // Not final: the call was carried out, and may have to be undone.
    text = base::dump_json(
        {{"id", id},
         {"code", "UNAVAILABLE"},
         {"message", absl::StrCat("the answer has ", text.size(), " bytes, of ", engine::kMaxOperationText,
                                  " that a StorageNode can carry")}});
  }
  bool all_answered = false;
  size_t asked = 0;
  {
    std::lock_guard lock(mutex_);
    if (!subject.empty()) busy_.erase(subject);
    if (listed_.contains(id)) answers_[id] = std::move(text);
    asked = taken_.size();
    all_answered = answers_.size() == asked;
    if (verb.ok() && (*verb == drivers::Verb::kCreate || *verb == drivers::Verb::kRemove)) {
      measure_soon_ = true;
      measure_.notify_all();
    }
  }
  subject_free_.notify_all();
  if (all_answered) {
    commit_.touch_now();
  } else {
    commit_.touch(asked);
  }
}

void NodeAgent::measure_capacities(const base::Context& context) {
  for (const auto& state : agent_.status().backends) {
    {
      std::lock_guard lock(mutex_);
      const auto [running, begun] = measuring_.try_emplace(state.name, false);
      running->second = !begun;
      if (!begun) continue;
    }
    submit(state.name, [this, context, state] { measure_capacity(context, state); });
  }
}

void NodeAgent::measure_capacity(const base::Context& context, const node::BackendState& state) {
  auto measured = state.ready ? agent_.carry_out(context.with_timeout(kMeasureTimeout), state.name,
                                                 drivers::Verb::kCapacity,
                                                 {{"parameters", Json::object()}, {"where", Json::object()}})
                              : absl::StatusOr<Json>(absl::UnavailableError(state.message));
  auto capacity = measured.ok() ? drivers::capacity_from_json(*measured) : measured.status();
  bool changed = false;
  {
    std::lock_guard lock(mutex_);
    // What changed meanwhile may not be in this measurement.
    measure_soon_ = measuring_[state.name] || measure_soon_;
    measuring_.erase(state.name);
    auto told = capacities_.find(state.name);
    if (!capacity.ok()) {
      changed = capacities_.erase(state.name) > 0;
    } else if (told == capacities_.end() || worth_publishing(told->second, *capacity)) {
      capacities_[state.name] = *capacity;
      changed = true;
    }
  }
  measure_.notify_all();
  if (changed) commit_.touch();
}

absl::Status NodeAgent::write_status(const base::Context& context) {
  Json state = state_json(agent_.status());
  state["agentVersion"] = version_;
  state["bootID"] = boot_id_;
  state["nodeID"] = node_name_;
  std::vector<std::string> texts;
  Json answers;
  std::string state_text, answers_text;
  bool tell_state = false, tell_answers = false;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, answer] : answers_) texts.push_back(answer);
    for (Json& backend : state["backends"]) {
      auto measured = capacities_.find(backend["name"].get<std::string>());
      if (measured == capacities_.end()) continue;
      backend["capacity"] = {{"totalBytes", measured->second.total_bytes},
                             {"availableBytes", measured->second.available_bytes},
                             {"maximumVolumeBytes", measured->second.maximum_volume_bytes}};
    }
    state_text = base::dump_json(state);
    answers = engine::list_of(texts);
    answers_text = base::dump_json(answers);
    tell_state = state_text != written_state_;
    tell_answers =
        resumed_ && answers_text != written_answers_;  // before, it would wipe an earlier process's
  }
  if (!tell_state && !tell_answers) return absl::OkStatus();
  Json status = tell_state ? std::move(state) : Json::object();
  if (tell_answers) status["operations"] = std::move(answers);
  auto patched = client_.patch(context, kube::kStorageNodes, {"", node_name_}, kube::PatchType::kMerge,
                               {{"status", std::move(status)}}, {.subresource = "status"});
  if (!patched.ok()) {
    return base::annotate(patched.status(), absl::StrCat("write the status of StorageNode ", node_name_,
                                                         " (the operator makes it when the node joins)"));
  }
  std::lock_guard lock(mutex_);
  written_state_ = std::move(state_text);
  if (tell_answers) written_answers_ = std::move(answers_text);
  return absl::OkStatus();
}

}  // namespace collage::reconcile
