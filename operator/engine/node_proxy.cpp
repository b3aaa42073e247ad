#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "drivers/codec.h"
#include "operator/engine/error_table.h"
#include "operator/engine/fan_out.h"
#include "operator/engine/node_choice.h"
#include "operator/engine/node_operations.h"

namespace collage::engine {
namespace {

using base::Context;
using base::Json;
using drivers::ControlPlace;
using drivers::Verb;
using drivers::Volume;
using Nodes = std::vector<std::string>;

constexpr size_t kAtOnce = 16;    // nodes asked at the same time
constexpr size_t kReadTries = 3;  // nodes asked for one read

bool contains(const Nodes& nodes, const std::string& node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

// "<node>/<rest>" as both; nullopt when it is not of that form.
std::optional<std::pair<std::string, std::string>> split(const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == 0 || slash == std::string::npos) return std::nullopt;
  return std::pair(text.substr(0, slash), text.substr(slash + 1));
}

// As a word of its own: "b" is not in "disk trouble".
bool names(const std::string& text, const std::string& node) {
  const auto in_name = [&](size_t at) {
    return at < text.size() && (absl::ascii_isalnum(text[at]) || text[at] == '-');
  };
  for (size_t at = text.find(node); at != std::string::npos; at = text.find(node, at + 1)) {
    if (!(at > 0 && in_name(at - 1)) && !in_name(at + node.size())) return true;
  }
  return false;
}

// Immutable but for `choice_`; thread safe.
class NodeProxy final : public drivers::Driver, private drivers::Attacher, private drivers::CapacityReporter {
 public:
  NodeProxy(const drivers::Kind& kind, std::string backend, NodeOperations& nodes)
      : info_(kind.info),
        attaches_(kind.attaches),
        reports_capacity_(kind.reports_capacity),
        backend_(std::move(backend)),
        nodes_(nodes) {}

  const drivers::DriverInfo& info() const override { return info_; }
  drivers::Attacher* attacher() override { return attaches_ ? this : nullptr; }
  drivers::CapacityReporter* capacity_reporter() override { return reports_capacity_ ? this : nullptr; }

  absl::StatusOr<drivers::ProbeResult> probe(const Context& context, const ProbeOptions& options) override;
  absl::StatusOr<Volume> create(const Context& context, const drivers::CreateRequest& request) override;
  absl::Status remove(const Context& context, const std::string& volume_id) override;
  absl::StatusOr<std::optional<Volume>> find(const Context& context, const std::string& name) override;
  absl::StatusOr<Volume> inspect(const Context& context, const std::string& volume_id) override;
  absl::StatusOr<drivers::VolumePage> list(const Context& context, const std::string& token,
                                           int max_entries) override;
  absl::StatusOr<drivers::Access> access(const std::string& volume_id, const drivers::StringMap&,
                                         const drivers::StringMap&) const override;
  absl::StatusOr<drivers::StringMap> attach(const Context& context, const std::string& volume_id,
                                            const std::string& node_id,
                                            const drivers::VolumeCapability& capability,
                                            bool read_only) override;
  absl::Status detach(const Context& context, const std::string& volume_id,
                      const std::string& node_id) override;
  absl::StatusOr<drivers::Capacity> capacity(const Context& context, const drivers::StringMap& parameters,
                                             const drivers::Topology& where) override;

 private:
  bool on_owner() const { return info_.control == ControlPlace::kOwnerNode; }
  absl::Status no_node() const;
  absl::Status not_ready(const std::string& node) const;

  // One call on one node; its end is remembered.
  absl::StatusOr<Json> run(const Context& context, const std::string& node, const std::string& volume,
                           Verb verb, const Json& arguments);
  // On whatever node reaches the storage.
  absl::StatusOr<Json> read_anywhere(const Context& context, Verb verb, const Json& arguments);
  absl::StatusOr<Json> write_anywhere(const Context& context, const std::string& volume, Verb verb,
                                      const Json& arguments);
  // On the node that the volume's id names; NOT_FOUND when it names none.
  absl::StatusOr<Json> call_owner(const Context& context, const std::string& volume_id, Verb verb,
                                  const Json& arguments);
  // On all, several at a time; one answer a node in the order of `nodes`. Stops once `enough` says so.
  std::vector<absl::StatusOr<Json>> ask(const Context& context, const Nodes& nodes, Verb verb,
                                        const Json& arguments,
                                        const std::function<bool(const absl::StatusOr<Json>&)>& enough);

  absl::StatusOr<drivers::ProbeResult> probe_first_good(const Context& context, const Nodes& nodes,
                                                        const ProbeOptions& options);
  absl::StatusOr<Nodes> candidates(const drivers::CreateRequest& request) const;
  absl::StatusOr<Json> create_on_owner(const Context& context, const drivers::CreateRequest& request);
  absl::StatusOr<std::optional<Volume>> find_on_owners(const Context& context, const std::string& name);
  absl::StatusOr<drivers::VolumePage> list_of_owners(const Context& context, const std::string& token,
                                                     int max_entries);
  absl::StatusOr<drivers::Capacity> capacity_of_owners(const Context& context, const Json& arguments);

  const drivers::DriverInfo info_;
  const bool attaches_, reports_capacity_;
  const std::string backend_;
  NodeOperations& nodes_;
  NodeChoice choice_;
};

// ---- Reaching nodes

absl::Status NodeProxy::no_node() const {
  return absl::UnavailableError(absl::StrCat("no node reaches backend \"", backend_,
                                             "\" at present: see in kubectl get storagenodes -o yaml what "
                                             "each node says of it, and that the node agents run"));
}

absl::Status NodeProxy::not_ready(const std::string& node) const {
  return absl::UnavailableError(absl::StrCat("node ", node, " does not reach backend \"", backend_,
                                             "\" at present: see in kubectl get storagenode ", node,
                                             " -o yaml what it says of it, and that its agent runs"));
}

absl::StatusOr<Json> NodeProxy::run(const Context& context, const std::string& node,
                                    const std::string& volume, Verb verb, const Json& arguments) {
  absl::StatusOr<Json> result = nodes_.run(context, node, backend_, verb, arguments);
  choice_.ended(node, volume, result.status());
  if (result.ok() || names(std::string(result.status().message()), node)) return result;
  return base::annotate(result.status(), "node " + node);
}

absl::StatusOr<Json> NodeProxy::read_anywhere(const Context& context, Verb verb, const Json& arguments) {
  const Nodes nodes = choice_.order(nodes_.ready_nodes(backend_));
  const size_t tries = std::min(nodes.size(), kReadTries);
  absl::StatusOr<Json> result = no_node();
  for (size_t i = 0; i < tries && context.status().ok(); ++i) {
    // A node that is silent must leave time for the next one.
    result = run(context.with_timeout(context.remaining() / (tries - i)), nodes[i], "", verb, arguments);
    if (is_final(result.status())) break;
  }
  return result;
}

absl::StatusOr<Json> NodeProxy::write_anywhere(const Context& context, const std::string& volume, Verb verb,
                                               const Json& arguments) {
  const Nodes nodes = choice_.order(nodes_.ready_nodes(backend_));
  if (nodes.empty()) return no_node();
  // A node that is ready no more is left: it would hold up the volume for as long as it is away. The driver's
  // own marks on the shared storage keep two nodes apart then.
  const std::string busy = choice_.busy_at(volume);
  return run(context, contains(nodes, busy) ? busy : nodes.front(), volume, verb, arguments);
}

absl::StatusOr<Json> NodeProxy::call_owner(const Context& context, const std::string& volume_id, Verb verb,
                                           const Json& arguments) {
  const auto owner = split(volume_id);
  if (!owner)
    return absl::NotFoundError(
        absl::StrCat("no volume ", volume_id, ": ids of kind ", info_.kind, " are <node>/<name>"));
  if (!contains(nodes_.ready_nodes(backend_), owner->first))
    return base::annotate(not_ready(owner->first), "volume " + volume_id);
  return run(context, owner->first, volume_id, verb, arguments);
}

std::vector<absl::StatusOr<Json>> NodeProxy::ask(
    const Context& context, const Nodes& nodes, Verb verb, const Json& arguments,
    const std::function<bool(const absl::StatusOr<Json>&)>& enough) {
  std::vector<absl::StatusOr<Json>> answers(nodes.size(), absl::UnavailableError("not asked"));
  fan_out(nodes.size(), kAtOnce, [&](size_t i) {
    answers[i] = run(context, nodes[i], "", verb, arguments);
    return !enough(answers[i]);
  });
  return answers;
}

// ---- The port

absl::StatusOr<drivers::ProbeResult> NodeProxy::probe_first_good(const Context& context, const Nodes& nodes,
                                                                 const ProbeOptions& options) {
  Json arguments = Json::object();
  if (options.initialize) arguments["initialize"] = true;
  if (!options.expected_system_id.empty()) arguments["expectedSystemID"] = options.expected_system_id;
  const auto answers =
      ask(context, nodes, Verb::kProbe, arguments, [](const auto& answer) { return answer.ok(); });
  absl::Status status = no_node();
  bool refused = false;  // a node's own word says more than a node's silence
  for (const auto& answer : answers) {
    if (answer.ok()) return drivers::ProbeResult{base::get_string(*answer, "/systemID")};
    if (refused || answer.status().message() == "not asked") continue;
    refused = is_final(answer.status());
    status = answer.status();
  }
  return status;
}

// A mark is put on exactly one node: where a directory is not the same share on every node, a second mark
// would make a second storage system. So all are asked first whether they see one, and then one that answered
// puts it there.
absl::StatusOr<drivers::ProbeResult> NodeProxy::probe(const Context& context, const ProbeOptions& options) {
  Nodes nodes = choice_.order(nodes_.ready_nodes(backend_));
  for (const std::string& node : nodes_.agent_nodes()) {
    if (!contains(nodes, node)) nodes.push_back(node);
  }
  if (nodes.empty()) {
    return absl::UnavailableError(
        absl::StrCat("no node can be asked about backend \"", backend_,
                     "\": see that the node agents run (kubectl get storagenodes)"));
  }
  const bool marks = options.initialize && !on_owner();
  const ProbeOptions looking{.initialize = options.initialize && !marks,
                             .expected_system_id = options.expected_system_id};
  if (!marks) return probe_first_good(context, nodes, looking);

  const auto answers =
      ask(context, nodes, Verb::kProbe, Json::object(), [](const auto& answer) { return answer.ok(); });
  for (const auto& answer : answers) {
    if (answer.ok()) return drivers::ProbeResult{base::get_string(*answer, "/systemID")};
  }
  std::optional<absl::Status> refusal;
  for (size_t i = 0; i < nodes.size(); ++i) {
    absl::Status status = answers[i].status();
    // Only a node that may miss nothing but the mark is let try; one that refuses has put none.
    if (absl::IsFailedPrecondition(status)) {
      auto result = probe_first_good(context, {nodes[i]}, options);
      if (result.ok() || !is_final(result.status())) return result;
      status = result.status();
    }
    if (!refusal && is_final(status)) refusal = status;
  }
  return refusal.value_or(answers.front().status());
}

absl::StatusOr<Volume> NodeProxy::create(const Context& context, const drivers::CreateRequest& request) {
  COLLAGE_RETURN_IF_ERROR(drivers::validate_create(info_, request));
  COLLAGE_ASSIGN_OR_RETURN(
      const Json result,
      on_owner() ? create_on_owner(context, request)
                 : write_anywhere(context, request.name, Verb::kCreate, drivers::to_json(request)));
  return drivers::volume_from_json(result);
}

// The nodes that the request allows, the preferred first.
absl::StatusOr<Nodes> NodeProxy::candidates(const drivers::CreateRequest& request) const {
  const std::string key = drivers::node_topology_key(info_.kind);
  Nodes nodes;
  for (const auto* terms : {&request.preferred, &request.requisite}) {
    for (const drivers::Topology& term : *terms) {
      const auto found = term.find(key);
      if (found != term.end() && !contains(nodes, found->second)) nodes.push_back(found->second);
    }
  }
  if (nodes.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("volume ", request.name, ": a volume of kind ", info_.kind,
                     " lives on one node, so its topology must name one by the key ", key));
  }
  return nodes;
}

absl::StatusOr<Json> NodeProxy::create_on_owner(const Context& context,
                                                const drivers::CreateRequest& request) {
  COLLAGE_ASSIGN_OR_RETURN(const Nodes allowed, candidates(request));
  const Nodes ready = nodes_.ready_nodes(backend_);
  const Json arguments = drivers::to_json(request);
  // A create that may have begun on a node is finished there: begun again elsewhere it would be a second
  // volume.
  const std::string busy = choice_.busy_at(request.name);
  if (contains(allowed, busy)) {
    if (!contains(ready, busy)) return not_ready(busy);
    return run(context, busy, request.name, Verb::kCreate, arguments);
  }
  absl::StatusOr<Json> result = not_ready(absl::StrJoin(allowed, ", "));
  for (const std::string& node : allowed) {
    if (!contains(ready, node)) continue;
    result = run(context, node, request.name, Verb::kCreate, arguments);
    if (!absl::IsResourceExhausted(result.status())) break;  // full: the next one may have room
  }
  return result;
}

absl::Status NodeProxy::remove(const Context& context, const std::string& volume_id) {
  const Json arguments = {{"id", volume_id}};
  if (!on_owner()) return write_anywhere(context, volume_id, Verb::kRemove, arguments).status();
  if (!split(volume_id)) return absl::OkStatus();  // no such volume
  return call_owner(context, volume_id, Verb::kRemove, arguments).status();
}

absl::StatusOr<std::optional<Volume>> NodeProxy::find(const Context& context, const std::string& name) {
  if (on_owner()) return find_on_owners(context, name);
  COLLAGE_ASSIGN_OR_RETURN(const Json result, read_anywhere(context, Verb::kFind, {{"name", name}}));
  if (result.is_null()) return std::nullopt;
  return drivers::volume_from_json(result);
}

absl::StatusOr<std::optional<Volume>> NodeProxy::find_on_owners(const Context& context,
                                                                const std::string& name) {
  const Nodes nodes = choice_.order(nodes_.ready_nodes(backend_));
  if (nodes.empty()) return no_node();
  const auto answers = ask(context, nodes, Verb::kFind, {{"name", name}},
                           [](const auto& answer) { return answer.ok() && !answer->is_null(); });
  for (const auto& answer : answers) {
    if (answer.ok() && !answer->is_null()) return drivers::volume_from_json(*answer);
  }
  // Nowhere, if every node said so.
  const std::string doubt = absl::StrCat("cannot tell whether volume ", name, " exists");
  for (const auto& answer : answers) {
    if (!answer.ok()) return absl::UnavailableError(absl::StrCat(doubt, ": ", answer.status().message()));
  }
  const std::string busy = choice_.busy_at(name);
  if (!busy.empty() && !contains(nodes, busy)) return base::annotate(not_ready(busy), doubt);
  return std::nullopt;
}

absl::StatusOr<Volume> NodeProxy::inspect(const Context& context, const std::string& volume_id) {
  const Json arguments = {{"id", volume_id}};
  COLLAGE_ASSIGN_OR_RETURN(const Json result, on_owner()
                                                  ? call_owner(context, volume_id, Verb::kInspect, arguments)
                                                  : read_anywhere(context, Verb::kInspect, arguments));
  return drivers::volume_from_json(result);
}

absl::StatusOr<drivers::VolumePage> NodeProxy::list(const Context& context, const std::string& token,
                                                    int max_entries) {
  if (on_owner()) return list_of_owners(context, token, max_entries);
  Json arguments = Json::object();
  if (!token.empty()) arguments["token"] = token;
  if (max_entries > 0) arguments["max"] = max_entries;
  COLLAGE_ASSIGN_OR_RETURN(const Json result, read_anywhere(context, Verb::kList, arguments));
  return drivers::volume_page_from_json(result);
}

// Node after node; the token is "<node>/<that node's token>".
absl::StatusOr<drivers::VolumePage> NodeProxy::list_of_owners(const Context& context,
                                                              const std::string& token, int max_entries) {
  Nodes nodes = nodes_.ready_nodes(backend_);
  if (nodes.empty()) return no_node();
  std::sort(nodes.begin(), nodes.end());
  const auto place = token.empty() ? std::pair(nodes.front(), std::string())
                                   : split(token).value_or(std::pair(std::string(), token));
  const auto node = std::find(nodes.begin(), nodes.end(), place.first);
  if (node == nodes.end()) {
    return absl::AbortedError(absl::StrCat("the list of backend \"", backend_, "\" stopped at node ",
                                           place.first, ", which does not reach it any more: start over"));
  }
  Json arguments = Json::object();
  if (!place.second.empty()) arguments["token"] = place.second;
  if (max_entries > 0) arguments["max"] = max_entries;
  COLLAGE_ASSIGN_OR_RETURN(const Json result, run(context, *node, "", Verb::kList, arguments));
  COLLAGE_ASSIGN_OR_RETURN(drivers::VolumePage page, drivers::volume_page_from_json(result));
  if (!page.next_token.empty()) {
    page.next_token = absl::StrCat(*node, "/", page.next_token);
  } else if (std::next(node) != nodes.end()) {
    page.next_token = absl::StrCat(*std::next(node), "/");
  }
  return page;
}

absl::StatusOr<drivers::Access> NodeProxy::access(const std::string& volume_id, const drivers::StringMap&,
                                                  const drivers::StringMap&) const {
  return absl::FailedPreconditionError(
      absl::StrCat("volume ", backend_, "/", volume_id, ": how a node reaches it is known on the node only"));
}

absl::StatusOr<drivers::StringMap> NodeProxy::attach(const Context& context, const std::string& volume_id,
                                                     const std::string& node_id,
                                                     const drivers::VolumeCapability& capability,
                                                     bool read_only) {
  Json arguments = {{"id", volume_id}, {"nodeID", node_id}, {"capability", drivers::to_json(capability)}};
  if (read_only) arguments["readOnly"] = true;
  COLLAGE_ASSIGN_OR_RETURN(const Json result,
                           on_owner() ? call_owner(context, volume_id, Verb::kAttach, arguments)
                                      : write_anywhere(context, volume_id, Verb::kAttach, arguments));
  const Json* publish_context = base::find(result, "/publishContext");
  if (publish_context == nullptr) return drivers::StringMap{};
  return drivers::string_map_from_json(*publish_context);
}

absl::Status NodeProxy::detach(const Context& context, const std::string& volume_id,
                               const std::string& node_id) {
  Json arguments = {{"id", volume_id}};
  if (!node_id.empty()) arguments["nodeID"] = node_id;
  if (!on_owner()) return write_anywhere(context, volume_id, Verb::kDetach, arguments).status();
  if (!split(volume_id)) return absl::OkStatus();  // no such volume
  return call_owner(context, volume_id, Verb::kDetach, arguments).status();
}

absl::StatusOr<drivers::Capacity> NodeProxy::capacity(const Context& context,
                                                      const drivers::StringMap& parameters,
                                                      const drivers::Topology& where) {
  Json arguments = Json::object();
  if (!parameters.empty()) arguments["parameters"] = drivers::to_json(parameters);
  if (!where.empty()) arguments["where"] = drivers::to_json(where);
  if (!on_owner()) {
    COLLAGE_ASSIGN_OR_RETURN(const Json result, read_anywhere(context, Verb::kCapacity, arguments));
    return drivers::capacity_from_json(result);
  }
  const auto node = where.find(drivers::node_topology_key(info_.kind));
  if (node == where.end()) return capacity_of_owners(context, arguments);
  if (!contains(nodes_.ready_nodes(backend_), node->second)) return not_ready(node->second);
  COLLAGE_ASSIGN_OR_RETURN(const Json result, run(context, node->second, "", Verb::kCapacity, arguments));
  return drivers::capacity_from_json(result);
}

// All nodes together. A node that does not answer adds nothing.
absl::StatusOr<drivers::Capacity> NodeProxy::capacity_of_owners(const Context& context,
                                                                const Json& arguments) {
  const Nodes nodes = nodes_.ready_nodes(backend_);
  absl::Status status = no_node();
  drivers::Capacity sum;
  bool any = false;
  for (const auto& answer :
       ask(context, nodes, Verb::kCapacity, arguments, [](const auto&) { return false; })) {
    if (!answer.ok()) {
      status = answer.status();
      continue;
    }
    COLLAGE_ASSIGN_OR_RETURN(const drivers::Capacity capacity, drivers::capacity_from_json(*answer));
    sum.total_bytes += capacity.total_bytes;
    sum.available_bytes += capacity.available_bytes;
    sum.maximum_volume_bytes = std::max(sum.maximum_volume_bytes, capacity.maximum_volume_bytes);
    any = true;
  }
  if (!any) return status;
  return sum;
}

}  // namespace

std::unique_ptr<drivers::Driver> make_node_proxy(const drivers::Kind& kind, const std::string& backend,
                                                 NodeOperations& nodes) {
  return std::make_unique<NodeProxy>(kind, backend, nodes);
}

}  // namespace collage::engine
