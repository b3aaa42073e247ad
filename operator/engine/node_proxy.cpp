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
#include "operator/engine/node_calls.h"
#include "operator/engine/node_operations.h"

namespace collage::engine {
namespace {

using base::Context;
using base::Json;
using drivers::ControlPlace;
using drivers::Verb;
using drivers::Volume;
using Nodes = NodeCalls::Nodes;

bool contains(const Nodes& nodes, const std::string& node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

// "<node>/<rest>" as both; nullopt when it is not of that form.
std::optional<std::pair<std::string, std::string>> split(const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == 0 || slash == std::string::npos) return std::nullopt;
  return std::pair(text.substr(0, slash), text.substr(slash + 1));
}

std::string doubt_about(const std::string& name) {
  return absl::StrCat("cannot tell whether volume ", name, " exists");
}

// What lists travel in is an object of the API server: a page must stay far below kMaxOperationText.
constexpr int kPageEntries = 200;

Json list_arguments(const std::string& token, int max_entries) {
  Json arguments = {{"max", max_entries > 0 ? std::min(max_entries, kPageEntries) : kPageEntries}};
  if (!token.empty()) arguments["token"] = token;
  return arguments;
}

drivers::ProbeResult probe_result(const Json& answer) {
  drivers::ProbeResult result{.system_id = base::get_string(answer, "/systemID")};
  if (const Json* uids = base::find(answer, "/clusterUIDs"); uids != nullptr && uids->is_array()) {
    for (const Json& uid : *uids) {
      if (uid.is_string()) result.cluster_uids.push_back(uid.get<std::string>());
    }
  }
  return result;
}

// Thread safe.
class NodeProxy final : public drivers::Driver, private drivers::Attacher, private drivers::CapacityReporter {
 public:
  NodeProxy(const drivers::Kind& kind, std::string backend, NodeOperations& nodes)
      : info_(kind.info),
        attaches_(kind.attaches),
        reports_capacity_(kind.reports_capacity),
        calls_(std::move(backend), nodes) {}

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
  absl::Status fence(const Context& context, const std::string& volume_id,
                     const std::string& node_id) override;
  // What only nodes reach has no provider that knows machines.
  absl::StatusOr<std::string> proof_of_absence(const Context&, const std::string&) override {
    return std::string();
  }
  absl::StatusOr<drivers::Capacity> capacity(const Context& context, const drivers::StringMap& parameters,
                                             const drivers::Topology& where) override;

 private:
  bool on_owner() const { return info_.control == ControlPlace::kOwnerNode; }
  // On the node that the volume's id names; NOT_FOUND when it names none.
  absl::StatusOr<Json> call_owner(const Context& context, const std::string& volume_id, Verb verb,
                                  const Json& arguments);

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
  NodeCalls calls_;
};

absl::StatusOr<Json> NodeProxy::call_owner(const Context& context, const std::string& volume_id, Verb verb,
                                           const Json& arguments) {
  const auto owner = split(volume_id);
  if (!owner)
    return absl::NotFoundError(
        absl::StrCat("no volume ", volume_id, ": ids of kind ", info_.kind, " are <node>/<name>"));
  if (!calls_.is_ready(owner->first))
    return base::annotate(calls_.not_ready(owner->first), "volume " + volume_id);
  return calls_.run(context, owner->first, volume_id, verb, arguments);
}

// ---- The port

absl::StatusOr<drivers::ProbeResult> NodeProxy::probe_first_good(const Context& context, const Nodes& nodes,
                                                                 const ProbeOptions& options) {
  Json arguments = Json::object();
  if (options.initialize) arguments["initialize"] = true;
  if (!options.expected_system_id.empty()) arguments["expectedSystemID"] = options.expected_system_id;
  if (!options.cluster.id.empty()) {
    arguments["clusterID"] = options.cluster.id;
    arguments["clusterUID"] = options.cluster.uid;
  }
  const auto answers =
      calls_.ask(context, nodes, Verb::kProbe, arguments, [](const auto& answer) { return answer.ok(); });
  absl::Status status = calls_.no_node();
  bool refused = false;  // a node's own word says more than a node's silence
  for (const auto& answer : answers) {
    if (answer.ok()) return probe_result(*answer);
    if (refused || NodeCalls::is_not_asked(answer.status())) continue;
    refused = drivers::is_final(answer.status());
    status = answer.status();
  }
  return status;
}

// A mark is put on exactly one node: where a directory is not the same share on every node, a second mark
// would make a second storage system. So all are asked first whether they see one, and then one that answered
// puts it there.
absl::StatusOr<drivers::ProbeResult> NodeProxy::probe(const Context& context, const ProbeOptions& options) {
  const Nodes nodes = calls_.all();
  if (nodes.empty()) {
    return absl::UnavailableError(
        absl::StrCat("no node can be asked about backend \"", calls_.backend(),
                     "\": see that the node agents run (kubectl get storagenodes)"));
  }
  const bool marks = options.initialize && !on_owner();
  ProbeOptions looking = options;
  looking.initialize = options.initialize && !marks;
  if (!marks) return probe_first_good(context, nodes, looking);

  const auto answers = calls_.ask(context, nodes, Verb::kProbe, Json::object(),
                                  [](const auto& answer) { return answer.ok(); });
  for (const auto& answer : answers) {
    if (answer.ok()) return probe_result(*answer);
  }
  std::optional<absl::Status> refusal;
  for (size_t i = 0; i < nodes.size(); ++i) {
    absl::Status status = answers[i].status();
    // Only a node that may miss nothing but the mark is let try; one that refuses has put none.
    if (absl::IsFailedPrecondition(status)) {
      auto result = probe_first_good(context, {nodes[i]}, options);
      if (result.ok() || !drivers::is_final(result.status())) return result;
      status = result.status();
    }
    if (!refusal && drivers::is_final(status)) refusal = status;
  }
  return refusal.value_or(answers.front().status());
}

absl::StatusOr<Volume> NodeProxy::create(const Context& context, const drivers::CreateRequest& request) {
  COLLAGE_RETURN_IF_ERROR(drivers::validate_create(info_, request));
  COLLAGE_ASSIGN_OR_RETURN(
      const Json result,
      on_owner() ? create_on_owner(context, request)
                 : calls_.write_anywhere(context, request.name, Verb::kCreate, drivers::to_json(request)));
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
  const Nodes ready = calls_.ready();
  const Json arguments = drivers::to_json(request);
  // A create that may have begun on a node is finished there: begun again elsewhere it would be a second
  // volume.
  const std::string busy = calls_.busy_at(request.name);
  if (contains(allowed, busy)) {
    if (!contains(ready, busy)) return calls_.not_ready(busy);
    return calls_.run(context, busy, request.name, Verb::kCreate, arguments);
  }
  absl::StatusOr<Json> result = calls_.not_ready(absl::StrJoin(allowed, ", "));
  for (const std::string& node : allowed) {
    if (!contains(ready, node)) continue;
    result = calls_.run(context, node, request.name, Verb::kCreate, arguments);
    if (!absl::IsResourceExhausted(result.status())) break;  // full: the next one may have room
  }
  return result;
}

absl::Status NodeProxy::remove(const Context& context, const std::string& volume_id) {
  const Json arguments = {{"id", volume_id}};
  if (!on_owner()) return calls_.write_anywhere(context, volume_id, Verb::kRemove, arguments).status();
  if (!split(volume_id)) return absl::OkStatus();  // no such volume
  return call_owner(context, volume_id, Verb::kRemove, arguments).status();
}

absl::StatusOr<std::optional<Volume>> NodeProxy::find(const Context& context, const std::string& name) {
  if (on_owner()) return find_on_owners(context, name);
  const Json arguments = {{"name", name}};
  COLLAGE_ASSIGN_OR_RETURN(Json result, calls_.read_anywhere(context, Verb::kFind, arguments));
  if (const std::string busy = calls_.busy_at(name); result.is_null() && !busy.empty()) {
    // What is not there yet may come: that node answers once its create has ended.
    if (!calls_.is_ready(busy)) return base::annotate(calls_.not_ready(busy), doubt_about(name));
    COLLAGE_ASSIGN_OR_RETURN(result, calls_.run(context, busy, "", Verb::kFind, arguments));
  }
  if (result.is_null()) return std::nullopt;
  return drivers::volume_from_json(result);
}

absl::StatusOr<std::optional<Volume>> NodeProxy::find_on_owners(const Context& context,
                                                                const std::string& name) {
  const Nodes nodes = calls_.ready();
  if (nodes.empty()) return calls_.no_node();
  const auto answers = calls_.ask(context, nodes, Verb::kFind, {{"name", name}},
                                  [](const auto& answer) { return answer.ok() && !answer->is_null(); });
  for (const auto& answer : answers) {
    if (answer.ok() && !answer->is_null()) return drivers::volume_from_json(*answer);
  }
  // Nowhere, if every node said so.
  const std::string doubt = doubt_about(name);
  for (const auto& answer : answers) {
    if (!answer.ok()) return absl::UnavailableError(absl::StrCat(doubt, ": ", answer.status().message()));
  }
  const std::string busy = calls_.busy_at(name);
  if (!busy.empty() && !contains(nodes, busy)) return base::annotate(calls_.not_ready(busy), doubt);
  return std::nullopt;
}

absl::StatusOr<Volume> NodeProxy::inspect(const Context& context, const std::string& volume_id) {
  const Json arguments = {{"id", volume_id}};
  COLLAGE_ASSIGN_OR_RETURN(const Json result, on_owner()
                                                  ? call_owner(context, volume_id, Verb::kInspect, arguments)
                                                  : calls_.read_anywhere(context, Verb::kInspect, arguments));
  return drivers::volume_from_json(result);
}

absl::StatusOr<drivers::VolumePage> NodeProxy::list(const Context& context, const std::string& token,
                                                    int max_entries) {
  if (on_owner()) return list_of_owners(context, token, max_entries);
  const Json arguments = list_arguments(token, max_entries);
  COLLAGE_ASSIGN_OR_RETURN(const Json result, calls_.read_anywhere(context, Verb::kList, arguments));
  return drivers::volume_page_from_json(result);
}

// Node after node; the token is "<node>/<that node's token>".
absl::StatusOr<drivers::VolumePage> NodeProxy::list_of_owners(const Context& context,
                                                              const std::string& token, int max_entries) {
  Nodes nodes = calls_.ready();
  if (nodes.empty()) return calls_.no_node();
  std::sort(nodes.begin(), nodes.end());
  const auto place = token.empty() ? std::pair(nodes.front(), std::string())
                                   : split(token).value_or(std::pair(std::string(), token));
  const auto node = std::find(nodes.begin(), nodes.end(), place.first);
  if (node == nodes.end()) {
    return absl::AbortedError(absl::StrCat("the list of backend \"", calls_.backend(), "\" stopped at node ",
                                           place.first, ", which does not reach it any more: start over"));
  }
  const Json arguments = list_arguments(place.second, max_entries);
  COLLAGE_ASSIGN_OR_RETURN(const Json result, calls_.run(context, *node, "", Verb::kList, arguments));
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
  return absl::FailedPreconditionError(absl::StrCat("volume ", calls_.backend(), "/", volume_id,
                                                    ": how a node reaches it is known on the node only"));
}

absl::StatusOr<drivers::StringMap> NodeProxy::attach(const Context& context, const std::string& volume_id,
                                                     const std::string& node_id,
                                                     const drivers::VolumeCapability& capability,
                                                     bool read_only) {
  Json arguments = {{"id", volume_id}, {"nodeID", node_id}, {"capability", drivers::to_json(capability)}};
  if (read_only) arguments["readOnly"] = true;
  COLLAGE_ASSIGN_OR_RETURN(const Json result,
                           on_owner() ? call_owner(context, volume_id, Verb::kAttach, arguments)
                                      : calls_.write_anywhere(context, volume_id, Verb::kAttach, arguments));
  const Json* publish_context = base::find(result, "/publishContext");
  if (publish_context == nullptr) return drivers::StringMap{};
  return drivers::string_map_from_json(*publish_context);
}

absl::Status NodeProxy::detach(const Context& context, const std::string& volume_id,
                               const std::string& node_id) {
  Json arguments = {{"id", volume_id}};
  if (!node_id.empty()) arguments["nodeID"] = node_id;
  if (!on_owner()) return calls_.write_anywhere(context, volume_id, Verb::kDetach, arguments).status();
  if (!split(volume_id)) return absl::OkStatus();  // no such volume
  return call_owner(context, volume_id, Verb::kDetach, arguments).status();
}

absl::Status NodeProxy::fence(const Context& context, const std::string& volume_id,
                              const std::string& node_id) {
  const Json arguments = {{"id", volume_id}, {"nodeID", node_id}};
  if (on_owner()) return call_owner(context, volume_id, Verb::kFence, arguments).status();
  return calls_.write_anywhere(context, volume_id, Verb::kFence, arguments).status();
}

absl::StatusOr<drivers::Capacity> NodeProxy::capacity(const Context& context,
                                                      const drivers::StringMap& parameters,
                                                      const drivers::Topology& where) {
  Json arguments = Json::object();
  if (!parameters.empty()) arguments["parameters"] = drivers::to_json(parameters);
  if (!where.empty()) arguments["where"] = drivers::to_json(where);
  if (!on_owner()) {
    COLLAGE_ASSIGN_OR_RETURN(const Json result, calls_.read_anywhere(context, Verb::kCapacity, arguments));
    return drivers::capacity_from_json(result);
  }
  const auto node = where.find(drivers::node_topology_key(info_.kind));
  if (node == where.end()) return capacity_of_owners(context, arguments);
  if (!calls_.is_ready(node->second)) return calls_.not_ready(node->second);
  COLLAGE_ASSIGN_OR_RETURN(const Json result,
                           calls_.run(context, node->second, "", Verb::kCapacity, arguments));
  return drivers::capacity_from_json(result);
}

// All nodes together. A node that does not answer adds nothing.
absl::StatusOr<drivers::Capacity> NodeProxy::capacity_of_owners(const Context& context,
                                                                const Json& arguments) {
  const Nodes nodes = calls_.ready();
  absl::Status status = calls_.no_node();
  drivers::Capacity sum;
  bool any = false;
  for (const auto& answer :
       calls_.ask(context, nodes, Verb::kCapacity, arguments, [](const auto&) { return false; })) {
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
