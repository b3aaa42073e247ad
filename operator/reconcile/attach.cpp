#include "operator/reconcile/attach.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status.h"
#include "operator/reconcile/attachment_writes.h"
#include "operator/reconcile/finalizers.h"
#include "operator/reconcile/volume_metrics.h"

namespace collage::reconcile {
namespace {

constexpr std::chrono::milliseconds kBusy{50};
constexpr std::chrono::milliseconds kReadSpacing{100};  // of live reads of one node that many share
constexpr int kCrowd = 16;                              // so many

bool tells_of_holders(const kube::Node& before, const kube::Node& after) {
  return before.volumes_in_use != after.volumes_in_use || before.out_of_service != after.out_of_service ||
         before.ready != after.ready;
}

std::string boot_of(const kube::StorageNodeObject& node) {
  return base::get_string(*node.json, "/status/bootID");
}

}  // namespace

AttachController::AttachController(World& world, engine::NodeOperations* nodes, AttachOptions options)
    : world_(world),
      nodes_(nodes),
      options_(options),
      live_nodes_(kReadSpacing, kCrowd,
                  [this](const auto& context, const auto& name) { return read_node(context, name); }),
      attaches_(
          "attach", options.threads_per_backend, [this](const std::string& name) { return lane_of(name); },
          [this](const base::Context& context, const std::string& name) { return attach(context, name); }),
      detaches_(
          "detach", options.threads_per_backend, [this](const std::string& name) { return lane_of(name); },
          [this](const base::Context& context, const std::string& name) { return detach(context, name); }) {
  add_handlers();
}

AttachController::~AttachController() {
  stop();
}

void AttachController::start(const base::Context& context) {
  attaches_.start(context);
  detaches_.start(context);
  started_ = true;
  for (const auto& attachment : world_.attachments.list()) enqueue(*attachment);
}

void AttachController::stop() {
  attaches_.stop();
  detaches_.stop();
}

void AttachController::add_handlers() {
  world_.attachments.add_handler([this](const auto& before, const auto& after) {
    if (!started_) return;
    if (after == nullptr) {
      ask_again(before->meta.name);
      enqueue_others(before->volume_name);
      return;
    }
    // Our own status writes change nothing that is to be done: they must not cut a back-off short.
    const bool news = before == nullptr || before->meta.uid != after->meta.uid ||
                      before->meta.deleting != after->meta.deleting || before->attached != after->attached ||
                      before->holder_gone != after->holder_gone;
    if (news) enqueue(*after);
  });
  // The node's agent registered, or registered anew.
  world_.csi_nodes.add_handler([this](const auto&, const auto& after) {
    if (!started_ || after == nullptr) return;
    for (const auto& attachment : world_.attachments.list()) {
      if (attachment->node_name == after->meta.name && !attachment->meta.deleting) enqueue(*attachment);
    }
  });
  // What a refused detach waits for: the node unstaged a volume, somebody said that it is off, it fell silent
  // or came back.
  world_.nodes.add_handler([this](const auto& before, const auto& after) {
    if (!started_ || (before != nullptr && after != nullptr && !tells_of_holders(*before, *after))) return;
    enqueue_detaches((after != nullptr ? after : before)->meta.name);
  });
  // The agent that can say what a node still holds has started.
  world_.storage_nodes.add_handler([this](const auto& before, const auto& after) {
    if (!started_ || after == nullptr || boot_of(*after).empty()) return;
    if (before == nullptr || boot_of(*before) != boot_of(*after)) enqueue_detaches(after->meta.name);
  });
}

void AttachController::enqueue_detaches(const std::string& node) {
  for (const auto& attachment : world_.attachments.list()) {
    if (attachment->node_name == node && attachment->meta.deleting) enqueue(*attachment);
  }
}

// A volume that another node holds, whose detach there waits: its reason is this one's too.
absl::Status AttachController::with_waiting_detach(const kube::Attachment& attachment,
                                                   const absl::Status& why) const {
  if (!absl::IsFailedPrecondition(why)) return why;
  for (const auto& other : world_.attachments.by_index(World::kByVolume, attachment.volume_name)) {
    if (other->meta.name == attachment.meta.name || !other->meta.deleting || other->detach_error.empty())
      continue;
    return absl::FailedPreconditionError(absl::StrCat(std::string(why.message()), "; VolumeAttachment ",
                                                      other->meta.name, ": ", other->detach_error));
  }
  return why;
}

void AttachController::backend_changed(const std::string& backend) {
  if (!started_) return;
  for (const auto& attachment : world_.attachments.list()) {
    if (is_ours(*attachment) && lane_of(attachment->meta.name) == backend) enqueue(*attachment);
  }
}

std::string AttachController::lane_of(const std::string& name) const {
  const auto attachment = world_.attachments.get(name);
  if (attachment == nullptr) return "";
  const auto volume = world_.volumes.get(attachment->volume_name);
  if (volume == nullptr) return "";
  const auto handle = drivers::parse_handle(volume->handle);
  return handle.ok() ? handle->backend : "";
}

bool AttachController::is_ours(const kube::Attachment& attachment) const {
  return world_.kind_of_driver(attachment.attacher) != nullptr;
}

// Whoever calls this saw something happen: a back-off comes back without it.
void AttachController::enqueue(const kube::Attachment& attachment) {
  if (!is_ours(attachment)) return;
  ask_again(attachment.meta.name);
  if (!attachment.meta.deleting) {
    if (!attachment.attached) attaches_.enqueue(attachment.meta.name);
    return;
  }
  if (ends_with_us(attachment)) detaches_.enqueue(attachment.meta.name);
}

void AttachController::ask_again(const std::string& attachment) {
  std::lock_guard lock(mutex_);
  next_question_.erase(attachment);
}

// Also one that another's finalizer keeps, until it says that it is attached no more.
bool AttachController::ends_with_us(const kube::Attachment& attachment) const {
  return attachment.meta.deleting && is_ours(attachment) &&
         (attachment.attached ||
          attachment.meta.has_finalizer(engine::attacher_finalizer(attachment.attacher.str())));
}

void AttachController::attach_again(const std::string& attachment) {
  if (!started_) return;
  {
    std::lock_guard lock(mutex_);
    again_.insert(attachment);
  }
  attaches_.enqueue(attachment);
}

bool AttachController::take_again(const std::string& name) {
  std::lock_guard lock(mutex_);
  return again_.erase(name) > 0;
}

// A volume came free: whoever waits for it does not wait for the end of its back-off.
void AttachController::enqueue_others(const std::string& volume) {
  for (const auto& attachment : world_.attachments.by_index(World::kByVolume, volume)) enqueue(*attachment);
}

kube::Outcome AttachController::attach(const base::Context& context, const std::string& name) {
  const std::string backend_name = lane_of(name);
  if (world_.being_set_up(backend_name)) return kube::RequeueAfter{options_.slow_retry};
  auto attachment = world_.attachments.get(name);
  const bool again = take_again(name);
  if (attachment == nullptr || attachment->meta.deleting || (attachment->attached && !again) ||
      !is_ours(*attachment))
    return kube::Done{};
  const auto volume = world_.volumes.get(attachment->volume_name);
  const auto csi_node = world_.csi_nodes.get(attachment->node_name.str());
  const auto backend = world_.backends.get(backend_name);
  const AttachFacts facts{
      attachment.get(), volume.get(),  world_.kind_of_driver(attachment->attacher),
      csi_node.get(),   backend.get(), backend == nullptr ? world_.why_not_in_use(backend_name) : ""};
  const absl::StatusOr<AttachPlan> plan = plan_attach(facts);
  if (!plan.ok()) return attach_failed(context, *attachment, plan.status());

  const VolumeLocks::Hold hold = world_.locks.try_hold(volume->handle);
  if (!hold) {
    std::lock_guard lock(mutex_);
    if (again) again_.insert(name);
    return kube::RequeueAfter{kBusy};
  }
  // Looked at again now that nobody else works on the volume.
  attachment = world_.attachments.get(name);
  if (attachment == nullptr || attachment->meta.deleting || (attachment->attached && !again))
    return kube::Done{};
  return attach_held(context, *attachment, *volume, *backend, *plan);
}

kube::Outcome AttachController::attach_held(const base::Context& context, const kube::Attachment& attachment,
                                            const kube::Volume& volume, const engine::Backend& backend,
                                            const AttachPlan& plan) {
  absl::StatusOr<base::Json> whole = protect(context, attachment, volume, plan);
  if (!whole.ok()) return kube::Retry{whole.status()};
  const metrics::Call call(attachment.attacher.str(), metrics::kControllerPublishVolume);
  const absl::StatusOr<drivers::StringMap> published =
      backend.driver->attacher()->attach(context.with_timeout(options_.call_timeout), plan.handle.id,
                                         plan.node_id, plan.capability, plan.read_only);
  call.done(published.status());
  if (!published.ok()) {
    absl::Status why = base::annotate(
        published.status(), absl::StrCat("attach ", volume.handle, " to ", attachment.node_name.str()));
    return attach_failed(context, attachment, with_waiting_detach(attachment, why));
  }
  if (absl::Status status = say_attached(context, world_, attachment.meta, *std::move(whole), *published);
      !status.ok())
    return kube::Retry{status};
  base::log::info(context, "volume attached",
                  {{"volume", volume.handle}, {"node", attachment.node_name.str()}});
  return kube::Done{};
}

// Our finalizers, before anything is attached: on the volume (there from its creation, if we made it), and on
// the attachment together with the node's id, which a detach may need when nothing else knows it any more
// (contract 48). Answers the attachment, or null where the cache does not have it whole.
absl::StatusOr<base::Json> AttachController::protect(const base::Context& context,
                                                     const kube::Attachment& attachment,
                                                     const kube::Volume& volume, const AttachPlan& plan) {
  const std::string finalizer = engine::attacher_finalizer(attachment.attacher.str());
  if (!volume.meta.has_finalizer(finalizer)) {
    const base::Json patch = {{"metadata",
                               {{"uid", volume.meta.uid},
                                {"resourceVersion", volume.meta.resource_version},
                                {"finalizers", finalizers_with(volume.meta, {finalizer})}}}};
    absl::StatusOr<base::Json> answer = world_.client.patch(
        context, kube::kPersistentVolumes, volume.meta.key(), kube::PatchType::kMerge, patch, {});
    if (!answer.ok()) return base::annotate(answer.status(), "protect the PersistentVolume by a finalizer");
    world_.volumes.observe(*answer);
  }
  if (attachment.meta.has_finalizer(finalizer) && attachment.node_id == plan.node_id)
    return whole_of(attachment);
  base::Json annotations = {{"csi.alpha.kubernetes.io/node-id", plan.node_id}};
  const auto node = world_.nodes.get(attachment.node_name.str());
  if (node != nullptr && !node->machine.empty()) annotations[kMachine] = node->machine;
  return protect_attachment(context, world_, attachment, finalizer, annotations);
}

kube::Outcome AttachController::attach_failed(const base::Context& context,
                                              const kube::Attachment& attachment, const absl::Status& why) {
  say_failed(context, world_, attachment, AttachmentStep::kAttach, why);
  return kube::Retry{why};
}

}  // namespace collage::reconcile
