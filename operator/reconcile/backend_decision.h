#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/json.h"
#include "drivers/driver.h"

// What a StorageBackend's conditions say, as a pure function of what was seen.
namespace collage::reconcile {

// Annotation of a StorageBackend: UIDs of clusters that a person knows to exist no more, separated by commas.
inline constexpr char kClusterGone[] = "collage.storage/cluster-is-gone";

struct Condition {
  std::string type;    // Ready, CredentialsValid, Reachable, CapacityAvailable, Degraded
  std::string status;  // True, False, Unknown
  std::string reason;  // CamelCase, from the list in docs/troubleshooting.md
  std::string message;
  friend bool operator==(const Condition&, const Condition&) = default;
};

// A node with an agent, as its StorageNode tells.
struct NodeView {
  std::string name;
  bool known = false;  // its agent has tried this backend
  bool ready = false;
  std::string message;
  std::optional<drivers::Capacity> capacity;  // as the node measured it
  std::string hostname;                       // its label kubernetes.io/hostname
};

struct BackendFacts {
  absl::Status spec;  // parsed and valid, or what is wrong
  bool paused = false;
  bool deleting = false;
  std::string deletion_message;  // what holds the backend, while deleting
  bool needs_credentials = false;
  absl::Status credentials;         // the Secret as it is now; UNAVAILABLE: it could not be judged
  bool credentials_in_use = false;  // a driver with earlier, good ones works
  drivers::ControlPlace control = drivers::ControlPlace::kAnywhere;
  absl::Status probe;           // of the storage system itself
  std::vector<NodeView> nodes;  // empty for kAnywhere
  absl::Status classes;  // the StorageClasses and the CSIDriver are as they should be, or the first conflict
  std::optional<drivers::Capacity> capacity;
  absl::Status capacity_status;
  std::string contested;  // kept objects that somebody else changes again and again
  absl::Status cluster;   // another cluster of our id uses the storage, or OK
};

struct BackendVerdict {
  std::vector<Condition> conditions;
  std::string phase;   // Ready, NotReady, Paused, Deleting: for the printed column only
  absl::Status ready;  // why creates are refused at present; OK when they are not
};

BackendVerdict decide(const BackendFacts& facts);

// The UIDs that are not our own, of those registered under our cluster's id and of the one that the status
// holds, without those that a person has declared gone (`confirmed`, separated by commas). OK when there is
// none; else who it is and what to do.
absl::Status judge_cluster(const std::string& own_uid, const std::string& cluster_id,
                           const std::vector<std::string>& uids, const std::string& confirmed,
                           const std::string& backend);

// The conditions as JSON, each with observedGeneration and the time of its last change of status taken over
// from `before` (the conditions that the object has now).
base::Json conditions_json(const std::vector<Condition>& conditions, const base::Json* before,
                           int64_t generation, const std::string& now);

}  // namespace collage::reconcile
