#include "operator/engine/node_calls.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "operator/engine/fan_out.h"

namespace collage::engine {
namespace {

using base::Context;
using base::Json;

constexpr size_t kAtOnce = 16;  // nodes asked at the same time
constexpr size_t kTries = 3;    // nodes asked for one call
// A node that is dead, and not yet known to be, answers nothing at all.
constexpr std::chrono::seconds kSilence{5};
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

// What makes two writes the same one; "" for a read.
std::string call_of(const std::string& volume, drivers::Verb verb, const Json& arguments) {
  return volume.empty() ? "" : drivers::to_string(verb) + base::dump_json(arguments);
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
                                    const std::string& volume, drivers::Verb verb, const Json& arguments,
                                    std::chrono::nanoseconds silence) {
  absl::StatusOr<Json> result = nodes_.run(context, node, backend_, verb, arguments, silence);
  choice_.ended(node, volume, call_of(volume, verb, arguments), result.status());
  if (result.ok() || names(std::string(result.status().message()), node)) return result;
  return base::annotate(result.status(), "node " + node);
}

absl::StatusOr<Json> NodeCalls::read_anywhere(const Context& context, drivers::Verb verb,
                                              const Json& arguments) {
  const Nodes nodes = ready();
  const size_t tries = std::min(nodes.size(), kTries);
  absl::StatusOr<Json> result = no_node();
  for (size_t i = 0; i < tries; ++i) {
    if (absl::Status status = context.status(); !status.ok()) return i == 0 ? status : result;
    // A node that is silent must leave time for the next one, and soon; the last one has all that is left.
    const bool last = i + 1 == tries;
    const std::chrono::nanoseconds share = context.remaining() / (tries - i);
    result = run(last ? context : context.with_timeout(share), nodes[i], "", verb, arguments,
                 last ? NodeOperations::kAnySilence : kSilence);
    if (drivers::is_final(result.status())) break;
  }
  return result;
}

// Does a node that has been silent answer a look at the storage? It may be at work on one long call.
bool NodeCalls::is_alive(const Context& context, const std::string& node) {
  if (!is_ready(node)) return false;
  const absl::Status status =
      run(context.with_timeout(kSilence), node, "", drivers::Verb::kProbe, Json::object()).status();
  return !absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status);
}

// Which nodes may have a write, and why no volume is harmed.
//
// While it may be running on one node, any other write of that volume goes there and nowhere else, for as
// long as that node is ready: it comes behind the first one. (One that is ready no more is left: it would
// hold up the volume for as long as it is away.)
//
// The same write may be repeated on another node while the first one is silent. It is what a retry is:
// create, remove, attach, detach and fence are idempotent over all nodes, by the one rename or the one record
// on the shared storage that decides each (ImageStore, Ownership), so whichever of two is late finds it done.
// The first node stays marked, so that no later, other write overtakes what it may still do.
absl::StatusOr<Json> NodeCalls::write_anywhere(const Context& context, const std::string& volume,
                                               drivers::Verb verb, const Json& arguments) {
  Nodes nodes = ready();
  if (nodes.empty()) return no_node();
  const std::set<std::string> bound = choice_.bound_to(volume, call_of(volume, verb, arguments));
  for (const std::string& node : nodes) {
    if (bound.contains(node)) return run(context, node, volume, verb, arguments);
  }
  // Where it may be running already, unless nothing is heard from there.
  const auto began = std::find(nodes.begin(), nodes.end(), busy_at(volume));
  if (began != nodes.end() && !choice_.is_silent(*began)) std::rotate(nodes.begin(), began, began + 1);

  const size_t tries = std::min(nodes.size(), kTries);
  for (size_t i = 0; i + 1 < tries; ++i) {
    absl::StatusOr<Json> result = run(context, nodes[i], volume, verb, arguments, kSilence);
    const bool unheard = absl::IsUnavailable(result.status()) || absl::IsDeadlineExceeded(result.status());
    if (!unheard || !context.status().ok()) return result;
    if (is_alive(context, nodes[i])) return run(context, nodes[i], volume, verb, arguments);
  }
  return run(context, nodes[tries - 1], volume, verb, arguments);
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
