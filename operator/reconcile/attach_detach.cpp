#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status.h"
#include "drivers/driver.h"
#include "operator/reconcile/attach.h"
#include "operator/reconcile/finalizers.h"
#include "operator/reconcile/volume_metrics.h"

// The end of an attachment.
namespace collage::reconcile {
namespace {

constexpr std::chrono::milliseconds kBusy{50};

bool lists(const kube::Node& node, const std::string& name) {
  return std::find(node.volumes_in_use.begin(), node.volumes_in_use.end(), name) != node.volumes_in_use.end();
}

}  // namespace

kube::Outcome AttachController::detach(const base::Context& context, const std::string& name) {
  auto attachment = world_.attachments.get(name);
  const auto to_be_done = [this](const kube::Attachment* object) {
    return object != nullptr && object->meta.deleting && is_ours(*object) &&
           object->meta.has_finalizer(engine::attacher_finalizer(object->attacher.str()));
  };
  if (!to_be_done(attachment.get())) return kube::Done{};
  const auto detachment = find_detachment(context, *attachment);
  if (!detachment.ok()) return detach_failed(context, *attachment, detachment.status());
  if (!detachment->has_value())
    return detached(context, *attachment);  // the volume is gone, and its attachment with it

  const VolumeLocks::Hold hold = world_.locks.try_hold((*detachment)->handle);
  if (!hold) return kube::RequeueAfter{kBusy};
  // Looked at again now that nobody else works on the volume: a successor of the same name must not be
  // detached.
  attachment = world_.attachments.get(name);
  if (!to_be_done(attachment.get())) return kube::Done{};
  return detach_held(context, *attachment, **detachment);
}

absl::StatusOr<std::optional<AttachController::Detachment>> AttachController::find_detachment(
    const base::Context& context, const kube::Attachment& attachment) {
  std::string handle;
  std::shared_ptr<const kube::Volume> volume = world_.volumes.get(attachment.volume_name);
  if (volume == nullptr && !attachment.volume_name.empty()) {
    absl::StatusOr<base::Json> object =
        world_.client.get(context, kube::kPersistentVolumes, {"", attachment.volume_name});
    if (absl::IsNotFound(object.status())) return find_by_name(context, attachment);
    if (!object.ok())
      return base::annotate(object.status(), absl::StrCat("read PersistentVolume ", attachment.volume_name));
    COLLAGE_ASSIGN_OR_RETURN(kube::Volume live, kube::parse<kube::Volume>(*object));
    volume = std::make_shared<const kube::Volume>(std::move(live));
  }
  if (volume == nullptr) return std::nullopt;  // an inline volume: never attached by us
  COLLAGE_ASSIGN_OR_RETURN(const engine::Handle parsed, engine::parse_handle(volume->handle));
  auto backend = world_.backends.get(parsed.backend);
  if (backend == nullptr || drivers::csi_driver_name(backend->spec.kind) != attachment.attacher.str()) {
    return absl::UnavailableError(absl::StrCat("volume ", volume->handle,
                                               " cannot be detached: its StorageBackend \"", parsed.backend,
                                               "\" is not in use: create it again"));
  }
  COLLAGE_RETURN_IF_ERROR(check_system(parsed.backend, *backend, *volume));
  return Detachment{volume->handle, std::move(backend), parsed.id};
}

// The PersistentVolume is gone although our finalizer kept it: somebody took that off. Its name is the
// volume's at the provider.
absl::StatusOr<std::optional<AttachController::Detachment>> AttachController::find_by_name(
    const base::Context& context, const kube::Attachment& attachment) {
  if (engine::claim_uid_of(attachment.volume_name).empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("PersistentVolume ", attachment.volume_name,
                     " is gone, so its volume is not known: detach it at the storage from node ",
                     attachment.node_name.str(), ", then remove the finalizer of this VolumeAttachment"));
  }
  for (const auto& backend : world_.backends.list()) {
    if (drivers::csi_driver_name(backend->spec.kind) != attachment.attacher.str()) continue;
    auto found = backend->driver->find(context.with_timeout(options_.call_timeout), attachment.volume_name);
    if (!found.ok())
      return base::annotate(found.status(), absl::StrCat("look for volume ", attachment.volume_name, " on ",
                                                         backend->spec.name));
    if (found->has_value())
      return Detachment{engine::volume_handle(backend->spec.name, (*found)->id), backend, (*found)->id};
  }
  return std::nullopt;
}

engine::SharedReads<AttachController::LiveNode>::Answer AttachController::read_node(
    const base::Context& context, const std::string& name) const {
  absl::StatusOr<base::Json> object = world_.client.get(context, kube::kNodes, {"", name});
  if (absl::IsNotFound(object.status())) return nullptr;
  COLLAGE_RETURN_IF_ERROR(object.status());
  COLLAGE_ASSIGN_OR_RETURN(kube::Node node, kube::parse<kube::Node>(*object));
  const auto made = base::parse_rfc3339(base::get_string(*object, "/metadata/creationTimestamp"));
  return std::make_shared<const LiveNode>(std::move(node), made);
}

absl::StatusOr<DetachVerdict> AttachController::judge_detach(const base::Context& context,
                                                             const kube::Attachment& attachment,
                                                             const Detachment& detachment,
                                                             const std::vector<std::string>& node_ids) {
  const std::string in_use_name = absl::StrCat(attachment.attacher.str(), "^", detachment.handle);
  DetachFacts facts;
  facts.volume = detachment.handle;
  facts.node = attachment.node_name.str();
  facts.driver_fences = detachment.backend->driver->info().detach_fences;
  auto node = world_.nodes.get(facts.node);
  if (!facts.driver_fences) {
    // A volume taken from a node that has just begun to use it would be written from two sides: the cache
    // may lag, so it is asked live.
    const auto live = live_nodes_.get(context, facts.node);
    if (!live.ok()) return live.status();
    node = nullptr;
    if (*live != nullptr) {
      facts.node_newer = (*live)->made > attachment.created;
      node = std::shared_ptr<const kube::Node>(*live, &(*live)->node);
    }
  }
  facts.node_exists = node != nullptr;
  facts.node_ready = node != nullptr && node->ready;
  facts.out_of_service = node != nullptr && node->out_of_service;
  facts.in_use = node != nullptr && lists(*node, in_use_name);
  if (DetachVerdict verdict = detach_allowed(facts); verdict.allowed) return verdict;

  // Before it is refused, the rarer proofs are looked for.
  const absl::StatusOr<base::Json> object =
      world_.client.get(context, kube::kVolumeAttachments, attachment.meta.key());
  facts.confirmed =
      object.ok() &&
      base::get_string(*object, "/metadata/annotations/collage.storage~1holder-is-gone") == "true";
  const absl::StatusOr<drivers::Volume> volume =
      detachment.backend->driver->inspect(context.with_timeout(options_.call_timeout), detachment.volume_id);
  facts.holder_elsewhere =
      absl::IsNotFound(volume.status()) ||
      (volume.ok() && !volume->attached_to.empty() &&
       std::find(node_ids.begin(), node_ids.end(), volume->attached_to) == node_ids.end());
  return detach_allowed(facts);
}

kube::Outcome AttachController::detach_held(const base::Context& context, const kube::Attachment& attachment,
                                            const Detachment& detachment) {
  drivers::Attacher* const attacher = detachment.backend->driver->attacher();
  if (attacher == nullptr) return detached(context, attachment);
  const auto csi_node = world_.csi_nodes.get(attachment.node_name.str());
  const std::vector<std::string> node_ids = detach_node_ids(attachment, csi_node.get());
  if (node_ids.empty()) {  // "" would mean all nodes
    return detach_failed(context, attachment,
                         absl::FailedPreconditionError(absl::StrCat(
                             "node ", attachment.node_name.str(), " has no id of ", attachment.attacher.str(),
                             ": it must register again, or the annotation "
                             "csi.alpha.kubernetes.io/node-id must be put back")));
  }
  const absl::StatusOr<DetachVerdict> verdict = judge_detach(context, attachment, detachment, node_ids);
  if (!verdict.ok())
    return detach_failed(context, attachment,
                         base::annotate(verdict.status(), "find out who holds the volume"));
  if (!verdict->allowed)
    return detach_failed(context, attachment, absl::FailedPreconditionError(verdict->message));

  for (const std::string& node_id : node_ids) {
    const metrics::Call call(attachment.attacher.str(), metrics::kControllerUnpublishVolume);
    const absl::Status status =
        attacher->detach(context.with_timeout(options_.call_timeout), detachment.volume_id, node_id);
    call.done(status);
    // Whatever the code, it may still be attached (contract 5).
    if (!status.ok()) {
      return detach_failed(context, attachment,
                           base::annotate(status, absl::StrCat("detach ", detachment.handle, " from ",
                                                               attachment.node_name.str())));
    }
  }
  base::log::info(
      context, "volume detached",
      {{"volume", detachment.handle}, {"node", attachment.node_name.str()}, {"proof", verdict->proof}});
  if (!verdict->proof.empty()) {
    if (const auto volume = world_.volumes.get(attachment.volume_name)) {
      world_.events.event(
          kube::event_target(*volume), kube::EventType::kNormal, "ForcedDetach",
          absl::StrCat("volume ", detachment.handle, " was taken from node ", attachment.node_name.str(),
                       ", which had not unstaged it; proof that it can no longer write: ", verdict->proof));
    }
  }
  return detached(context, attachment);
}

// The finalizer goes first, then the status (contract 52), of which nothing is left to write when ours was
// the last finalizer.
kube::Outcome AttachController::detached(const base::Context& context, const kube::Attachment& attachment) {
  const std::string finalizer = engine::attacher_finalizer(attachment.attacher.str());
  absl::StatusOr<base::Json> now =
      remove_finalizers(context, world_.client, kube::kVolumeAttachments, attachment.meta, {finalizer});
  if (!now.ok()) return kube::Retry{now.status()};
  const base::Json* left = now->is_null() ? nullptr : base::find(*now, "/metadata/finalizers");
  if (left != nullptr && left->is_array() && !left->empty()) {
    world_.attachments.observe(*now);
    const base::Json status = {
        {"status", {{"attached", false}, {"attachmentMetadata", nullptr}, {"detachError", nullptr}}}};
    absl::StatusOr<base::Json> answer =
        world_.client.patch(context, kube::kVolumeAttachments, attachment.meta.key(), kube::PatchType::kMerge,
                            status, {.subresource = "status"});
    if (answer.ok()) world_.attachments.observe(*answer);
    if (!answer.ok() && !absl::IsNotFound(answer.status())) return kube::Retry{answer.status()};
  }
  // Not waiting for the watch to say so: the successor is waiting.
  for (const auto& other : world_.attachments.by_index(World::kByVolume, attachment.volume_name)) {
    if (other->meta.name != attachment.meta.name) enqueue(*other);
  }
  return kube::Done{};
}

kube::Outcome AttachController::detach_failed(const base::Context& context,
                                              const kube::Attachment& attachment, const absl::Status& why) {
  if (context.stopped()) return kube::Retry{why};
  const std::string message(why.message());
  if (attachment.detach_error != message) {
    const base::Json status = {{"status",
                                {{"detachError",
                                  {{"message", message},
                                   {"time", base::rfc3339(context.clock().wall())},
                                   {"errorCode", static_cast<int>(why.code())}}}}}};
    absl::StatusOr<base::Json> answer =
        world_.client.patch(context, kube::kVolumeAttachments, attachment.meta.key(), kube::PatchType::kMerge,
                            status, {.subresource = "status"});
    if (answer.ok()) world_.attachments.observe(*answer);
  }
  return kube::Retry{why};
}

}  // namespace collage::reconcile
