#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "base/context.h"
#include "operator/node/agent.h"

namespace collage::csi {

struct NodeServerOptions {
  std::string kubelet_directory = "/var/lib/kubelet";  // at the same path for kubelet and for this process
  std::string state_directory;                         // for the locks of the sockets
  std::string node_name;
  std::string version;
};

// What kubelet sees of this node: for each kind that the agent wants served
//
//   <kubelet>/plugins/<kind>.collage.storage/csi.sock            Identity and Node of CSI v1
//   <kubelet>/plugins_registry/<kind>.collage.storage-reg.sock   kubelet's plugin registration, once the
//   former is served
//
// Kinds come and go with the agent's kinds_wanted(). A socket that cannot be served (in use, no permission)
// and a registration that kubelet refuses are told in the kind's state and tried again with back-off; they
// end nothing. Thread safe.
class NodeServer {
 public:
  NodeServer(node::Agent& agent, NodeServerOptions options);
  ~NodeServer();  // as stop()
  NodeServer(const NodeServer&) = delete;

  // After agent.recover(). INVALID_ARGUMENT for options that can never work.
  absl::Status start(const base::Context& context);
  // Registration sockets go first, so that kubelet sends nothing new; then calls under way end, at most 10 s
  // later.
  void stop();
  // OK when every kind that is wanted is served; else says which is not, and why. Whether kubelet has
  // registered it is in the kind's state.
  absl::Status ready() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace collage::csi
