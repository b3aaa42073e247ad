#include "operator/engine/node_calls.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "operator/engine/error_table.h"
#include "operator/engine/fan_out.h"

namespace collage::engine {
namespace {

using base::Context;
using base::Json;

constexpr size_t kAtOnce = 16;    // nodes asked at the same time
constexpr size_t kReadTries = 3;  // nodes asked for one read
constexpr char kNotAsked[] = "not asked: another node's answer was enough";

bool contains(const NodeCalls::Nodes& nodes, const std::string& node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
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

}  // namespace

NodeCalls::Nodes NodeCalls::ready() const {
  return choice_.order(nodes_.ready_nodes(backend_));
}

bool NodeCalls::is_ready(const std::string& node) const {
  return contains(nodes_.ready_nodes(backend_), node);
}

NodeCalls::Nodes NodeCalls::all() const {
  Nodes nodes = ready();
  for (const std::string& node : nodes_.agent_nodes()) {
    if (!contains(nodes, node)) nodes.push_back(node);
  }
  return nodes;
}

absl::Status NodeCalls::no_node() const {
  return absl::UnavailableError(absl::StrCat("no node reaches backend \"", backend_,
                                             "\" at present: see in kubectl get storagenodes -o yaml what "
                                             "each node says of it, and that the node agents run"));
}

absl::Status NodeCalls::not_ready(const std::string& node) const {
  return absl::UnavailableError(absl::StrCat("node ", node, " does not reach backend \"", backend_,
                                             "\" at present: see in kubectl get storagenode ", node,
                                             " -o yaml what it says of it, and that its agent runs"));
}

absl::StatusOr<Json> NodeCalls::run(const Context& context, const std::string& node,
                                    const std::string& volume, drivers::Verb verb, const Json& arguments) {
  absl::StatusOr<Json> result = nodes_.run(context, node, backend_, verb, arguments);
  choice_.ended(node, volume, result.status());
  if (result.ok() || names(std::string(result.status().message()), node)) return result;
  return base::annotate(result.status(), "node " + node);
}

absl::StatusOr<Json> NodeCalls::read_anywhere(const Context& context, drivers::Verb verb,
                                              const Json& arguments) {
  const Nodes nodes = ready();
  const size_t tries = std::min(nodes.size(), kReadTries);
  absl::StatusOr<Json> result = no_node();
  for (size_t i = 0; i < tries; ++i) {
    if (absl::Status status = context.status(); !status.ok()) return i == 0 ? status : result;
    // A node that is silent must leave time for the next one.
    result = run(context.with_timeout(context.remaining() / (tries - i)), nodes[i], "", verb, arguments);
    if (is_final(result.status())) break;
  }
  return result;
}

absl::StatusOr<Json> NodeCalls::write_anywhere(const Context& context, const std::string& volume,
                                               drivers::Verb verb, const Json& arguments) {
  const Nodes nodes = ready();
  if (nodes.empty()) return no_node();
  // A node that is ready no more is left: it would hold up the volume for as long as it is away. The driver's
  // own marks on the shared storage keep two nodes apart then.
  const std::string busy = busy_at(volume);
  return run(context, contains(nodes, busy) ? busy : nodes.front(), volume, verb, arguments);
}

NodeCalls::Answers NodeCalls::ask(const Context& context, const Nodes& nodes, drivers::Verb verb,
                                  const Json& arguments,
                                  const std::function<bool(const absl::StatusOr<Json>&)>& enough) {
  Answers answers(nodes.size(), absl::UnavailableError(kNotAsked));
  fan_out(nodes.size(), kAtOnce, [&](size_t i) {
    answers[i] = run(context, nodes[i], "", verb, arguments);
    return !enough(answers[i]);
  });
  return answers;
}

bool NodeCalls::is_not_asked(const absl::Status& status) {
  return status.message() == kNotAsked;
}

}  // namespace collage::engine
