#pragma once

#include "absl/status/statusor.h"
#include "drivers/kind.h"
#include "operator/engine/topology.h"
#include "operator/kube/objects.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

// Where the nodes with this CSI driver are, and which place the claim's volume must be reachable from
// (contract 20 to 22).
struct Place {
  engine::TopologyRequirement requirement;
  bool matters = false;  // false: the kind's volumes are reachable from everywhere; the requirement is empty
};

// UNAVAILABLE: no node has registered the driver yet. NOT_FOUND: the selected node does not exist (any more).
// FAILED_PRECONDITION: the selected node's place is not allowed. INVALID_ARGUMENT: no place can ever be.
absl::StatusOr<Place> find_place(const World& world, const drivers::Kind& kind, const kube::Claim& claim,
                                 const kube::StorageClass& storage_class);

}  // namespace collage::reconcile
