#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "drivers/volume.h"

// Where a new volume must be reachable from (contract C, 20 to 22): pure functions over what was observed.
namespace collage::engine {

// kStrict: the selected node alone, for kinds whose volume lives on one node. kPreferred: anywhere allowed,
// the selected node's place first.
enum class Placement { kPreferred, kStrict };

struct TopologyFacts {
  // The segment of every node where the CSI driver is registered: the keys of
  // CSINode.spec.drivers[].topologyKeys with the values of the Node's labels. Any order, repetitions allowed.
  // A segment without keys is left out by the caller.
  std::vector<drivers::Topology> cluster;
  // Of the claim's selected node; nullopt when volumes are bound at once (volumeBindingMode Immediate).
  std::optional<drivers::Topology> selected;
  std::string selected_node;  // its name, for messages
  // StorageClass.allowedTopologies: any one of these terms; in a term, every key with one of its values.
  // Empty: no limit.
  std::vector<std::map<std::string, std::vector<std::string>>> allowed;
  Placement placement = Placement::kPreferred;
  std::string claim_name;  // spreads claims that are bound at once
};

struct TopologyRequirement {
  std::vector<drivers::Topology> requisite;  // sorted, each once
  std::vector<drivers::Topology> preferred;  // the same, rotated
  friend bool operator==(const TopologyRequirement&, const TopologyRequirement&) = default;
};

// UNAVAILABLE when no node has registered the driver (retry: one may soon). FAILED_PRECONDITION when the
// selected node's place is not allowed by the class (another node may be). INVALID_ARGUMENT when no place of
// the cluster can ever be. The caller keeps the answer for as long as the create is not final, so that a
// retry sends the same requirement.
absl::StatusOr<TopologyRequirement> topology_requirement(const TopologyFacts& facts);

// Every key of `term` has the same value in `segment`.
bool covers(const drivers::Topology& term, const drivers::Topology& segment);

// "{zone=a, node=n1}", for messages.
std::string to_string(const drivers::Topology& topology);

}  // namespace collage::engine
