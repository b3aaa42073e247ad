#include "operator/reconcile/provision_place.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "drivers/driver.h"

namespace collage::reconcile {
namespace {

// The values of the driver's topology keys on this node; empty when the kind has none, or a label is not
// there yet.
drivers::Topology segment_of(const kube::CsiNode::Driver& driver, const kube::Node& node) {
  drivers::Topology segment;
  for (const kube::Interned& key : driver.topology_keys) {
    const auto label = node.topology.find(key.str());
    if (label == node.topology.end()) return {};
    segment.emplace(key.str(), label->second);
  }
  return segment;
}

absl::StatusOr<drivers::Topology> selected_segment(const World& world, const std::string& csi_driver,
                                                   const std::string& name) {
  const auto node = world.nodes.get(name);
  const auto csi_node = world.csi_nodes.get(name);
  if (node == nullptr || csi_node == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("the selected node ", name, " does not exist (any more): another will be selected"));
  }
  const kube::CsiNode::Driver* const driver = csi_node->driver(csi_driver);
  if (driver == nullptr) {
    return absl::UnavailableError(absl::StrCat("the selected node ", name, " has not registered ", csi_driver,
                                               " yet: see that its agent runs (kubectl get storagenode ",
                                               name, ")"));
  }
  return segment_of(*driver, *node);
}

}  // namespace

absl::StatusOr<Place> find_place(const World& world, const drivers::Kind& kind, const kube::Claim& claim,
                                 const kube::StorageClass& storage_class) {
  const std::string csi_driver = drivers::csi_driver_name(kind.info.kind);
  engine::TopologyFacts facts;
  bool has_keys = kind.info.control == drivers::ControlPlace::kOwnerNode;
  for (const auto& csi_node : world.csi_nodes.list()) {
    const kube::CsiNode::Driver* const driver = csi_node->driver(csi_driver);
    const auto node = world.nodes.get(csi_node->meta.name);
    if (driver == nullptr || node == nullptr) continue;
    if (drivers::Topology segment = segment_of(*driver, *node); !segment.empty())
      facts.cluster.push_back(std::move(segment));
    has_keys = has_keys || !driver->topology_keys.empty();
  }
  if (!has_keys && storage_class.allowed_topologies.empty()) return Place{};

  if (!claim.selected_node.empty()) {
    COLLAGE_ASSIGN_OR_RETURN(drivers::Topology segment,
                             selected_segment(world, csi_driver, claim.selected_node));
    if (segment.empty()) {
      return absl::UnavailableError(absl::StrCat("the selected node ", claim.selected_node,
                                                 " lacks the topology labels of ", csi_driver,
                                                 ": kubelet writes them when the agent registers"));
    }
    facts.selected = std::move(segment);
    facts.selected_node = claim.selected_node;
  }
  facts.allowed = storage_class.allowed_topologies;
  facts.placement = kind.info.control == drivers::ControlPlace::kOwnerNode ? engine::Placement::kStrict
                                                                           : engine::Placement::kPreferred;
  facts.claim_name = claim.meta.name;
  COLLAGE_ASSIGN_OR_RETURN(engine::TopologyRequirement requirement, engine::topology_requirement(facts));
  return Place{std::move(requirement), true};
}

}  // namespace collage::reconcile
