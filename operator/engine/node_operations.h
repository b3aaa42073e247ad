#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/context.h"
#include "base/json.h"
#include "drivers/kind.h"
#include "drivers/operation.h"

namespace collage::engine {

// Has a node carry out a call of the Driver port (on Kubernetes: through its StorageNode).
class NodeOperations {
 public:
  virtual ~NodeOperations() = default;
  // Nodes that reach this backend's storage right now, in a stable order.
  virtual std::vector<std::string> ready_nodes(const std::string& backend) const = 0;
  // All nodes with an agent, for the first probe of a backend.
  virtual std::vector<std::string> agent_nodes() const = 0;
  // Blocks for the answer: the driver's own status and result. Calls with equal arguments are one operation.
  // Not final (UNAVAILABLE, DEADLINE_EXCEEDED) when the node does not answer: "node-a does not answer: its
  // agent ...". It ends so as soon as the node cannot be asked any more, and once the node has answered no
  // call at all for as long as `silence`: a node that is merely slow with this one answers others.
  virtual absl::StatusOr<base::Json> run(const base::Context& context, const std::string& node,
                                         const std::string& backend, drivers::Verb verb,
                                         const base::Json& arguments, std::chrono::nanoseconds silence) = 0;
  static constexpr std::chrono::nanoseconds kAnySilence = std::chrono::nanoseconds::max();
};

// The Driver port over NodeOperations: for kinds whose control half runs only on nodes. Create and access of
// a kOwnerNode kind go to the node named in the request's topology or the volume id, everything else to any
// ready node, the last good one first. A `find` of a kOwnerNode kind asks every ready node.
std::unique_ptr<drivers::Driver> make_node_proxy(const drivers::Kind& kind, const std::string& backend,
                                                 NodeOperations& nodes);

}  // namespace collage::engine
