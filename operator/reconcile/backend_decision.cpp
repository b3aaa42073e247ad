#include "operator/reconcile/backend_decision.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace collage::reconcile {
namespace {

using base::Json;

Condition credentials_condition(const BackendFacts& facts) {
  if (!facts.needs_credentials)
    return {"CredentialsValid", "True", "NotNeeded", "This kind of storage needs no credentials."};
  if (facts.credentials.ok())
    return {"CredentialsValid", "True", "Valid", "The storage system accepts the credentials."};
  const std::string message = absl::StrCat(
      facts.credentials.message(), facts.credentials_in_use ? ". The earlier credentials stay in use." : "");
  if (absl::IsUnavailable(facts.credentials)) return {"CredentialsValid", "Unknown", "NotValidated", message};
  return {"CredentialsValid", "False", "InvalidCredentials", message};
}

std::string node_problems(const std::vector<NodeView>& nodes) {
  std::vector<std::string> problems;
  for (const NodeView& node : nodes) {
    if (node.known && !node.ready) problems.push_back(absl::StrCat(node.name, ": ", node.message));
  }
  return absl::StrJoin(problems, "; ");
}

Condition reachable_condition(const BackendFacts& facts) {
  if (!facts.probe.ok()) return {"Reachable", "False", "ProbeFailed", std::string(facts.probe.message())};
  if (facts.control == drivers::ControlPlace::kAnywhere)
    return {"Reachable", "True", "Reachable", "The storage system answers."};
  const size_t ready =
      std::count_if(facts.nodes.begin(), facts.nodes.end(), [](const auto& node) { return node.ready; });
  const std::string problems = node_problems(facts.nodes);
  if (!problems.empty()) return {"Reachable", "False", "NodesLackStorage", problems};
  if (ready == 0) {
    return {"Reachable", "Unknown", "NoNodeYet",
            "No node has tried this storage yet; a node with a running Collage agent is needed (see the "
            "DaemonSet)."};
  }
  return {"Reachable", "True", "Reachable",
          absl::StrCat("Reached from ", ready, ready == 1 ? " node." : " nodes.")};
}

Condition capacity_condition(const BackendFacts& facts) {
  if (!facts.capacity_status.ok())
    return {"CapacityAvailable", "Unknown", "NotKnown", std::string(facts.capacity_status.message())};
  if (!facts.capacity)
    return {"CapacityAvailable", "Unknown", "NotReported",
            "This kind of storage does not report its capacity."};
  if (facts.capacity->available_bytes < (int64_t{1} << 20)) {
    return {"CapacityAvailable", "False", "Full", "The storage is full: delete volumes or make it larger."};
  }
  return {"CapacityAvailable", "True", "Available", "There is room for more volumes."};
}

bool usable(const BackendFacts& facts) {
  if (!facts.probe.ok()) return false;
  if (facts.control == drivers::ControlPlace::kAnywhere) return true;
  return std::any_of(facts.nodes.begin(), facts.nodes.end(), [](const auto& node) { return node.ready; });
}

Condition ready_condition(const BackendFacts& facts, const Condition& reachable) {
  if (facts.deleting) return {"Ready", "False", "Deleting", facts.deletion_message};
  if (!facts.spec.ok()) return {"Ready", "False", "InvalidSpec", std::string(facts.spec.message())};
  if (!facts.credentials.ok() && !facts.credentials_in_use && !absl::IsUnavailable(facts.credentials))
    return {"Ready", "False", "InvalidCredentials", std::string(facts.credentials.message())};
  if (!usable(facts)) return {"Ready", "False", reachable.reason, reachable.message};
  if (!facts.classes.ok()) return {"Ready", "False", "ClassConflict", std::string(facts.classes.message())};
  if (facts.paused)
    return {"Ready", "False", "Paused", "spec.paused is true: no volume is made until it is set to false."};
  return {"Ready", "True", "Ready", "Volumes can be made, attached and mounted."};
}

}  // namespace

BackendVerdict decide(const BackendFacts& facts) {
  BackendVerdict verdict;
  if (!facts.spec.ok()) {
    Condition ready = ready_condition(facts, {});
    const std::string message = "Not looked at: the spec is not valid.";
    verdict.conditions = {ready,
                          {"CredentialsValid", "Unknown", "InvalidSpec", message},
                          {"Reachable", "Unknown", "InvalidSpec", message},
                          {"CapacityAvailable", "Unknown", "InvalidSpec", message},
                          {"Degraded", "True", "InvalidSpec", ready.message}};
    verdict.phase = facts.deleting ? "Deleting" : "NotReady";
    verdict.ready = facts.spec;
    return verdict;
  }
  const Condition reachable = reachable_condition(facts);
  const Condition ready = ready_condition(facts, reachable);
  Condition degraded{"Degraded", "False", "AsExpected", "Nothing is impaired."};
  if (ready.status != "True" && !facts.deleting && !facts.paused) {
    degraded = {"Degraded", "True", ready.reason, ready.message};
  } else if (reachable.status == "False") {
    degraded = {"Degraded", "True", reachable.reason, reachable.message};
  }
  const Condition credentials = credentials_condition(facts);
  if (degraded.status == "False" && credentials.status == "False") {
    degraded = {"Degraded", "True", credentials.reason, credentials.message};
  } else if (degraded.status == "False" && !facts.cluster.ok()) {
    degraded = {"Degraded", "True", "ClusterIdentity", std::string(facts.cluster.message())};
  } else if (degraded.status == "False" && !facts.contested.empty()) {
    degraded = {"Degraded", "True", "Contested", facts.contested};
  }
  verdict.conditions = {ready, credentials, reachable, capacity_condition(facts), degraded};
  verdict.phase = facts.deleting                             ? "Deleting"
                  : ready.status == "True"                   ? "Ready"
                  : facts.paused && ready.reason == "Paused" ? "Paused"
                                                             : "NotReady";
  // A conflict over a class's name does not keep claims of the other classes from their volumes.
  if (ready.status != "True" && ready.reason != "ClassConflict")
    verdict.ready = absl::UnavailableError(absl::StrCat(ready.reason, ": ", ready.message));
  return verdict;
}

absl::Status judge_cluster(const std::string& own_uid, const std::string& cluster_id,
                           const std::vector<std::string>& uids, const std::string& confirmed,
                           const std::string& backend) {
  const std::vector<std::string> gone = absl::StrSplit(confirmed, absl::ByAnyChar(", "), absl::SkipEmpty());
  std::vector<std::string> others;
  for (const std::string& uid : uids) {
    const bool known = uid.empty() || uid == own_uid ||
                       std::find(gone.begin(), gone.end(), uid) != gone.end() ||
                       std::find(others.begin(), others.end(), uid) != others.end();
    if (!known) others.push_back(uid);
  }
  if (others.empty()) return absl::OkStatus();
  std::vector<std::string> all = gone;
  all.insert(all.end(), others.begin(), others.end());
  return absl::FailedPreconditionError(absl::StrCat(
      "another cluster (UID ", absl::StrJoin(others, ", "), ") of the same clusterID \"", cluster_id,
      "\" has used this storage, and volumes of both look alike: until it is known to be gone, no volume is "
      "removed but those of deleted claims. Give one of them another clusterID (chart value); or, when that "
      "cluster exists no more: kubectl annotate --overwrite sb ",
      backend, " ", kClusterGone, "=", absl::StrJoin(all, ",")));
}

Json conditions_json(const std::vector<Condition>& conditions, const Json* before, int64_t generation,
                     const std::string& now) {
  Json result = Json::array();
  for (const Condition& condition : conditions) {
    std::string since = now;
    if (before != nullptr && before->is_array()) {
      for (const Json& old : *before) {
        if (base::get_string(old, "/type") == condition.type &&
            base::get_string(old, "/status") == condition.status) {
          since = base::get_string(old, "/lastTransitionTime", now);
        }
      }
    }
    // The schema allows 32 KiB; a person reads far less.
    std::string message = condition.message.substr(0, 4096);
    result.push_back({{"type", condition.type},
                      {"status", condition.status},
                      {"reason", condition.reason},
                      {"message", message},
                      {"observedGeneration", generation},
                      {"lastTransitionTime", since}});
  }
  return result;
}

}  // namespace collage::reconcile
