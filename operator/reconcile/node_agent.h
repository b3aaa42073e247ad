#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/workers.h"
#include "drivers/kind.h"
#include "operator/kube/informer.h"
#include "operator/node/agent.h"
#include "operator/reconcile/group_commit.h"

namespace collage::reconcile {

// A node's link to the cluster: tells the agent which backends there are, has it carry out what its
// StorageNode asks, and writes back answers and state, both in one status patch, only when something changed.
// Watches the StorageBackends and this one StorageNode, nothing else.
class NodeAgent {
 public:
  NodeAgent(kube::Client& client, node::Agent& agent, const std::vector<drivers::Kind>& kinds,
            std::string node_name, std::string version, const kube::ReflectorOptions& watching = {});
  ~NodeAgent();

  void start(const base::Context& context);
  void stop();
  // OK once the backends are known and the StorageNode was written.
  absl::Status ready() const;

 private:
  void backends_changed();
  void operations_changed(const kube::StorageNodeObject& object);
  void take_over_answers(const base::Json& storage_node);  // with mutex_ held
  void carry_out(const std::string& id, const base::Json& operation);
  absl::Status write_status(const base::Context& context);
  void submit(const std::string& backend, std::function<void()> work);
  void measure_capacities(const base::Context& context);
  void measure_capacity(const base::Context& context, const node::BackendState& state);

  kube::Client& client_;
  node::Agent& agent_;
  const std::vector<drivers::Kind>& kinds_;
  const std::string node_name_;
  const std::string version_;
  const std::string boot_id_;

  mutable std::mutex mutex_;
  std::condition_variable subject_free_;
  std::map<std::string, std::shared_ptr<const base::Json>> blocks_;  // the last parsed block of each backend
  std::map<std::string, std::string> unreadable_;  // backends whose spec this version cannot read -> why
  std::set<std::string> listed_;                   // ids in spec.operations
  std::set<std::string> taken_;                    // ids begun here; kept until they leave the list
  std::map<std::string, std::string> answers_;     // by id; as in status.operations
  std::set<std::string> busy_;                     // volumes that an operation works on
  std::string written_state_, written_answers_;    // the status as last written
  std::map<std::string, drivers::Capacity> capacities_;  // of each ready backend, as told to the cluster
  std::map<std::string, bool> measuring_;                // backends being measured -> once more afterwards
  bool measure_soon_ = false;
  bool stopped_ = false;
  bool resumed_ = false;  // the answers of an earlier process are known
  std::condition_variable_any measure_;
  base::Context context_;

  kube::Informer<kube::BackendObject> backends_;
  kube::Informer<kube::StorageNodeObject> self_;
  std::map<std::string, std::unique_ptr<base::Workers>> lanes_;  // by backend; under mutex_
  GroupCommit commit_;
  std::jthread measurer_;
};

}  // namespace collage::reconcile
