#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "operator/engine/node_operations.h"
#include "operator/reconcile/group_commit.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

// Calls that only a node can make, through its StorageNode: the operator lists them in spec.operations, the
// node's agent, which watches that one object, answers in status.operations.
//
//   run() -> waiting --(group commit: spec.operations)--> open --(informer: status.operations)--> answered ->
//   run() returns
//                                                                 the next write drops it from
//                                                                 spec.operations
//
// Every call has an id of its own, never used twice, so an old answer is never taken for a new one. Calls
// with equal arguments that wait at the same time are one. Killed anywhere: the next leader starts with an
// empty list, its first write drops what nobody waits for; the calls are idempotent and their creates are
// covered by intents. Thread safe.
class StorageNodeOperations final : public engine::NodeOperations {
 public:
  static constexpr size_t kMaxOpen = 128;  // as the StorageNode's schema has it; more wait here

  explicit StorageNodeOperations(World& world);
  ~StorageNodeOperations() override;

  void start(const base::Context& context);
  void stop();

  std::vector<std::string> ready_nodes(const std::string& backend) const override;
  std::vector<std::string> agent_nodes() const override;
  absl::StatusOr<base::Json> run(const base::Context& context, const std::string& node,
                                 const std::string& backend, drivers::Verb verb, const base::Json& arguments,
                                 std::chrono::nanoseconds silence) override;

 private:
  struct Call;
  struct NodeQueue;

  NodeQueue& queue(const std::string& node);
  absl::Status write(const base::Context& context, NodeQueue& queue);
  // Operations in the list that are not of this process: the next write drops them.
  void ask_again(const std::string& node);
  void drop_foreign(const kube::StorageNodeObject& object);
  void take_answers(const kube::StorageNodeObject& object);
  // The node as it can be asked now, or why it cannot: what Kubernetes says of Node and CSINode. No agent
  // writes a heartbeat, so one that has just died is asked in vain for a while.
  absl::Status reachable(const std::string& node) const;
  absl::Status wait(std::unique_lock<std::mutex>& lock, const base::Context& context, const std::string& node,
                    Call& call, std::chrono::nanoseconds silence);
  void leave(NodeQueue& queue, const std::shared_ptr<Call>& call);

  World& world_;
  const std::string process_;  // makes ids unique over restarts
  mutable std::mutex mutex_;
  uint64_t next_id_ = 0;
  std::map<std::string, std::unique_ptr<NodeQueue>> queues_;
  base::Context context_;
  bool started_ = false;
};

}  // namespace collage::reconcile
