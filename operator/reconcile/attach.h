#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "operator/engine/node_operations.h"
#include "operator/engine/shared_reads.h"
#include "operator/reconcile/attach_decision.h"
#include "operator/reconcile/lanes.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

struct AttachOptions {
  int threads_per_backend = 256;  // of each, attaches and detaches
  std::chrono::milliseconds call_timeout = std::chrono::minutes(1);
  std::chrono::milliseconds slow_retry = std::chrono::minutes(5);  // of what cannot work until somebody acts
};

// VolumeAttachments become attachments at the provider and end (contract F). Attaches and detaches have lanes
// of their own, so that a storm of the one never starves the other.
//
//   made --finalizer and node id, one patch--> driver: attach --status attached--> in use
//   deleted --guard: who holds it?--> driver: detach --our finalizer out--> gone
//
// What a kill leaves, and who heals it: before the first patch nothing. After it, before or after the
// driver's attach, an attachment with our finalizer that is not marked attached: the next process attaches
// again (the same answer), or, when it was deleted meanwhile, detaches what may be attached before it lets
// the finalizer go (contract 53). After the driver's detach: the next process detaches again (OK) and removes
// the finalizer. Thread safe. Made before the informers start; they are stopped before it is destroyed.
class AttachController {
 public:
  // nodes: who is asked what a node still holds; nullptr for nobody.
  explicit AttachController(World& world, engine::NodeOperations* nodes, AttachOptions options = {});
  ~AttachController();

  // Once, when this process leads and the caches are whole.
  void start(const base::Context& context);
  void stop();
  // Looks again at all attachments of this backend's volumes that are not as they should be. Does not block.
  void backend_changed(const std::string& backend);
  // The storage says that the volume is not attached where this attachment says so (contract 55): it goes
  // through the queue once more, as if it had never been attached.
  void attach_again(const std::string& attachment);
  size_t attach_depth() const { return attaches_.depth(); }
  size_t detach_depth() const { return detaches_.depth(); }

 private:
  void add_handlers();
  std::string lane_of(const std::string& name) const;
  bool is_ours(const kube::Attachment& attachment) const;
  bool ends_with_us(const kube::Attachment& attachment) const;
  // Puts it into the queue that it needs, if any.
  void enqueue(const kube::Attachment& attachment);
  void enqueue_others(const std::string& volume);
  void enqueue_detaches(const std::string& node);
  // The storage may be asked at once who holds the volume.
  void ask_again(const std::string& attachment);

  // ---- attach.cpp
  kube::Outcome attach(const base::Context& context, const std::string& name);
  bool take_again(const std::string& name);
  kube::Outcome attach_held(const base::Context& context, const kube::Attachment& attachment,
                            const kube::Volume& volume, const engine::Backend& backend,
                            const AttachPlan& plan);
  absl::StatusOr<base::Json> protect(const base::Context& context, const kube::Attachment& attachment,
                                     const kube::Volume& volume, const AttachPlan& plan);
  absl::Status with_waiting_detach(const kube::Attachment& attachment, const absl::Status& why) const;
  kube::Outcome attach_failed(const base::Context& context, const kube::Attachment& attachment,
                              const absl::Status& why);

  // ---- attach_detach.cpp
  struct Detachment {  // what is to be detached
    std::string handle;
    std::shared_ptr<const engine::Backend> backend;
    std::string volume_id;
  };
  kube::Outcome detach(const base::Context& context, const std::string& name);
  absl::StatusOr<std::optional<Detachment>> find_detachment(const base::Context& context,
                                                            const kube::Attachment& attachment);
  absl::StatusOr<std::optional<Detachment>> find_by_name(const base::Context& context,
                                                         const kube::Attachment& attachment);
  struct LiveNode {
    kube::Node node;
    base::Clock::Wall made;
  };
  // nullptr when there is none.
  engine::SharedReads<LiveNode>::Answer read_node(const base::Context& context,
                                                  const std::string& name) const;
  absl::StatusOr<std::string> look_at_node(const base::Context& context, const kube::Attachment& attachment,
                                           const std::string& in_use_name, DetachFacts& facts);
  absl::Status look_for_proof(const base::Context& context, const kube::Attachment& attachment,
                              const Detachment& detachment, const std::vector<std::string>& node_ids,
                              const std::string& machine, DetachFacts& facts);
  bool is_elsewhere(const base::Context& context, const kube::Attachment& attachment,
                    const Detachment& detachment, const std::vector<std::string>& node_ids);
  void ask_node(const base::Context& context, const Detachment& detachment, DetachFacts& facts);
  absl::StatusOr<DetachVerdict> judge_detach(const base::Context& context, const kube::Attachment& attachment,
                                             const Detachment& detachment,
                                             const std::vector<std::string>& node_ids);
  kube::Outcome detach_held(const base::Context& context, const kube::Attachment& attachment,
                            const Detachment& detachment);
  absl::StatusOr<std::string> take_away(const base::Context& context, const kube::Attachment& attachment,
                                        const Detachment& detachment,
                                        const std::vector<std::string>& node_ids,
                                        const DetachVerdict& verdict);
  kube::Outcome detached(const base::Context& context, const kube::Attachment& attachment);
  kube::Outcome detach_refused(const base::Context& context, const kube::Attachment& attachment,
                               const std::string& message);
  kube::Outcome detach_failed(const base::Context& context, const kube::Attachment& attachment,
                              const absl::Status& why);

  World& world_;
  engine::NodeOperations* const nodes_;
  const AttachOptions options_;
  std::atomic<bool> started_ = false;
  engine::SharedReads<LiveNode> live_nodes_;
  std::mutex mutex_;
  std::set<std::string> again_;
  std::map<std::string, base::Clock::Monotonic> next_question_;  // by attachments whose detach waits
  LanedController attaches_;
  LanedController detaches_;
};

}  // namespace collage::reconcile
