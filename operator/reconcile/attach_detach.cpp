#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status.h"
#include "drivers/driver.h"
#include "operator/reconcile/attach.h"
#include "operator/reconcile/attachment_writes.h"
#include "operator/reconcile/volume_metrics.h"

// The end of an attachment.
namespace collage::reconcile {
namespace {

constexpr std::chrono::milliseconds kBusy{50};
constexpr std::chrono::seconds kAskTimeout{10};
constexpr std::chrono::hours kAskEvery{1};  // the storage, when nothing happens
constexpr std::chrono::minutes kAskFailed{10};
constexpr char kWaitingForProof[] = "WaitingForProof";

bool lists(const kube::Node& node, const std::string& name) {
  return std::find(node.volumes_in_use.begin(), node.volumes_in_use.end(), name) != node.volumes_in_use.end();
}

}  // namespace

kube::Outcome AttachController::detach(const base::Context& context, const std::string& name) {
  auto attachment = world_.attachments.get(name);
  if (attachment == nullptr || !ends_with_us(*attachment)) return kube::Done{};
  if (world_.being_set_up(lane_of(name))) return kube::RequeueAfter{options_.slow_retry};
  const auto detachment = find_detachment(context, *attachment);
  if (!detachment.ok()) return detach_failed(context, *attachment, detachment.status());
  if (!detachment->has_value())
    return detached(context, *attachment);  // the volume is gone, and its attachment with it

  const VolumeLocks::Hold hold = world_.locks.try_hold((*detachment)->handle);
  if (!hold) return kube::RequeueAfter{kBusy};
  // Looked at again now that nobody else works on the volume: a successor of the same name must not be
  // detached.
  attachment = world_.attachments.get(name);
  if (attachment == nullptr || !ends_with_us(*attachment)) return kube::Done{};
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
  COLLAGE_ASSIGN_OR_RETURN(const drivers::Handle parsed, drivers::parse_handle(volume->handle));
  auto backend = world_.backends.get(parsed.backend);
  if (backend == nullptr || drivers::csi_driver_name(backend->spec.kind) != attachment.attacher.str()) {
    return absl::UnavailableError(absl::StrCat("volume ", volume->handle,
                                               " cannot be detached: its StorageBackend \"", parsed.backend,
                                               "\" is not in use: ", world_.why_not_in_use(parsed.backend)));
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
  const drivers::Kind* const kind = world_.kind_of_driver(attachment.attacher);
  for (const auto& object : world_.backend_objects.list()) {
    const std::string& name = object->meta.name;
    if (base::find(*object->json, "/spec/" + kind->info.kind) != nullptr &&
        world_.backends.get(name) == nullptr) {
      return absl::UnavailableError(
          absl::StrCat("PersistentVolume ", attachment.volume_name, " is gone, and StorageBackend \"", name,
                       "\", which may hold its volume, is not in use: see its conditions"));
    }
  }
  for (const auto& backend : world_.backends.list()) {
    if (drivers::csi_driver_name(backend->spec.kind) != attachment.attacher.str()) continue;
    // What another storage does not know may well be attached on the right one.
    if (!backend->identity.ok())
      return base::annotate(backend->identity, absl::StrCat("StorageBackend ", backend->spec.name));
    auto found = backend->driver->find(context.with_timeout(options_.call_timeout), attachment.volume_name);
    if (!found.ok())
      return base::annotate(found.status(), absl::StrCat("look for volume ", attachment.volume_name, " on ",
                                                         backend->spec.name));
    if (found->has_value())
      return Detachment{drivers::volume_handle(backend->spec.name, (*found)->id), backend, (*found)->id};
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
  return std::make_shared<const LiveNode>(LiveNode{std::move(node), made});
}

// The node as it is now; answers which machine it is.
absl::StatusOr<std::string> AttachController::look_at_node(const base::Context& context,
                                                           const kube::Attachment& attachment,
                                                           const std::string& in_use_name,
                                                           DetachFacts& facts) {
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
  return node == nullptr ? "" : node->machine;
}

// The proofs that cost a call each, looked for only when the detach would be refused without.
absl::Status AttachController::look_for_proof(const base::Context& context,
                                              const kube::Attachment& attachment,
                                              const Detachment& detachment,
                                              const std::vector<std::string>& node_ids,
                                              const std::string& machine, DetachFacts& facts) {
  const absl::StatusOr<base::Json> object =
      world_.client.get(context, kube::kVolumeAttachments, attachment.meta.key());
  if (!object.ok()) return object.status();
  const base::Json* const annotations = base::find(*object, "/metadata/annotations");
  const auto annotation = [&](const char* key) {
    const bool there = annotations != nullptr && annotations->is_object() && annotations->contains(key);
    return there && (*annotations)[key].is_string() ? (*annotations)[key].get<std::string>() : "";
  };
  facts.confirmed = annotation(kHolderGone) == "true";

  // Each id that it may be attached under must be accounted for.
  for (const std::string& node_id : node_ids) {
    const absl::StatusOr<std::string> absence = detachment.backend->driver->attacher()->proof_of_absence(
        context.with_timeout(options_.call_timeout), node_id);
    facts.absence = absence.value_or("");
    if (facts.absence.empty()) break;
  }
  facts.holder_elsewhere = is_elsewhere(context, attachment, detachment, node_ids);
  if (!facts.node_newer || !facts.node_ready || facts.in_use || detach_allowed(facts).allowed)
    return absl::OkStatus();

  // A Node that was made anew: what its agent says counts for that machine alone. Another machine of the same
  // name knows nothing of the one before, which may still run somewhere.
  const std::string before = annotation(kMachine);
  if (before.empty() || machine.empty()) {
    facts.node_says = "and which machine had that name is not known";
  } else if (before != machine) {
    facts.node_says = absl::StrCat("by another machine: ", machine, ", not ", before);
  } else {
    ask_node(context, detachment, facts);
  }
  return absl::OkStatus();
}

// Through a node each question costs writes to the API server, and a detach may wait for days: the storage is
// asked after each event, and from time to time for what it alone knows. Only a proof counts; what is none is
// not asked for again so soon.
bool AttachController::is_elsewhere(const base::Context& context, const kube::Attachment& attachment,
                                    const Detachment& detachment, const std::vector<std::string>& node_ids) {
  const std::string& name = attachment.meta.name;
  const auto now = context.clock().now();
  {
    std::lock_guard lock(mutex_);
    auto& next = next_question_[name];
    if (now < next) return false;
    next = now + kAskEvery;  // before the question: an event meanwhile takes it off
  }
  const absl::StatusOr<drivers::Volume> volume =
      detachment.backend->driver->inspect(context.with_timeout(options_.call_timeout), detachment.volume_id);
  const bool elsewhere = absl::IsNotFound(volume.status()) ||
                         (volume.ok() && !volume->attached_to.empty() &&
                          std::find(node_ids.begin(), node_ids.end(), volume->attached_to) == node_ids.end());
  // Its end may have been seen before the note of the question was made.
  if (elsewhere || world_.attachments.get(name) == nullptr) {
    ask_again(name);
  } else if (!volume.ok()) {
    std::lock_guard lock(mutex_);
    if (const auto next = next_question_.find(name); next != next_question_.end())
      next->second = now + kAskFailed;
  }
  return elsewhere;
}

// The agent compares its journal with the mounts and devices of its kernel: after a reboot there are none.
void AttachController::ask_node(const base::Context& context, const Detachment& detachment,
                                DetachFacts& facts) {
  if (nodes_ == nullptr) return;
  const absl::StatusOr<base::Json> answer =
      nodes_->run(context.with_timeout(kAskTimeout), facts.node, detachment.backend->spec.name,
                  drivers::Verb::kHolds, {{"id", detachment.volume_id}}, engine::NodeOperations::kAnySilence);
  if (!answer.ok()) {
    facts.node_says =
        absl::StrCat("asked whether it still has the volume: ", std::string(answer.status().message()));
    return;
  }
  const base::Json* const held = base::find(*answer, "/held");
  facts.let_go = held != nullptr && held->is_boolean() && !held->get<bool>();
  if (!facts.let_go)
    facts.node_says = absl::StrCat("it still has it at ", base::get_string(*answer, "/where"));
}

absl::StatusOr<DetachVerdict> AttachController::judge_detach(const base::Context& context,
                                                             const kube::Attachment& attachment,
                                                             const Detachment& detachment,
                                                             const std::vector<std::string>& node_ids) {
  const std::string in_use_name = absl::StrCat(attachment.attacher.str(), "^", detachment.handle);
  DetachFacts facts;
  facts.volume = detachment.handle;
  facts.node = attachment.node_name.str();
  facts.attachment = attachment.meta.name;
  facts.driver_fences = detachment.backend->driver->info().detach_fences;
  COLLAGE_ASSIGN_OR_RETURN(const std::string machine, look_at_node(context, attachment, in_use_name, facts));
  if (DetachVerdict verdict = detach_allowed(facts); verdict.allowed) return verdict;
  COLLAGE_RETURN_IF_ERROR(look_for_proof(context, attachment, detachment, node_ids, machine, facts));
  if (facts.let_go) {
    // Kubelet lists a volume before it has it mounted: what it began since the question shows here.
    COLLAGE_ASSIGN_OR_RETURN(const std::string now, look_at_node(context, attachment, in_use_name, facts));
    facts.let_go = now == machine && !facts.in_use;
  }
  return detach_allowed(facts);
}

// Detaches under each id. Answers what was done beside, for the event; "" when nothing was.
absl::StatusOr<std::string> AttachController::take_away(const base::Context& context,
                                                        const kube::Attachment& attachment,
                                                        const Detachment& detachment,
                                                        const std::vector<std::string>& node_ids,
                                                        const DetachVerdict& verdict) {
  drivers::Attacher& attacher = *detachment.backend->driver->attacher();
  std::string beside;
  for (const std::string& node_id : node_ids) {
    const metrics::Call call(attachment.attacher.str(), metrics::kControllerUnpublishVolume);
    absl::Status status = absl::UnimplementedError("not asked for");
    if (verdict.fence) {
      status = attacher.fence(context.with_timeout(options_.call_timeout), detachment.volume_id, node_id);
      beside = status.ok()
                   ? "; access was taken from it as well, so that later writes of it go nowhere"
                   : "; this storage cannot take access from it, so that only this word keeps two nodes "
                     "from writing to the volume";
    }
    if (absl::IsUnimplemented(status)) {
      status = attacher.detach(context.with_timeout(options_.call_timeout), detachment.volume_id, node_id);
    }
    call.done(status);
    // Whatever the code, it may still be attached (contract 5).
    if (!status.ok()) {
      return base::annotate(status,
                            absl::StrCat("detach ", detachment.handle, " from ", attachment.node_name.str()));
    }
  }
  return beside;
}

kube::Outcome AttachController::detach_held(const base::Context& context, const kube::Attachment& attachment,
                                            const Detachment& detachment) {
  if (detachment.backend->driver->attacher() == nullptr) return detached(context, attachment);
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
  if (!verdict->allowed) return detach_refused(context, attachment, verdict->message);

  const absl::StatusOr<std::string> beside = take_away(context, attachment, detachment, node_ids, *verdict);
  if (!beside.ok()) return detach_failed(context, attachment, beside.status());
  base::log::info(
      context, "volume detached",
      {{"volume", detachment.handle}, {"node", attachment.node_name.str()}, {"proof", verdict->proof}});
  if (!verdict->proof.empty()) {
    if (const auto volume = world_.volumes.get(attachment.volume_name)) {
      world_.events.event(
          kube::event_target(*volume), kube::EventType::kNormal, "ForcedDetach",
          absl::StrCat("volume ", detachment.handle, " was taken from node ", attachment.node_name.str(),
                       ", which had not unstaged it; proof that it can no longer write: ", verdict->proof,
                       *beside));
    }
  }
  return detached(context, attachment);
}

// Said where people look: on the attachment, and, once for each such message, on the claim, whose pod waits.
kube::Outcome AttachController::detach_refused(const base::Context& context,
                                               const kube::Attachment& attachment,
                                               const std::string& message) {
  if (!context.stopped() && attachment.detach_error != message) {
    world_.events.event(kube::event_target(attachment), kube::EventType::kWarning, kWaitingForProof, message);
    const auto volume = world_.volumes.get(attachment.volume_name);
    if (volume != nullptr && !volume->claim_uid.empty()) {
      const std::string space = volume->claim_namespace.str();
      world_.events.event({.api_version = kube::kPersistentVolumeClaims.api_version(),
                           .kind = "PersistentVolumeClaim",
                           .name_space = space,
                           .name = volume->claim_name,
                           .uid = volume->claim_uid},
                          kube::EventType::kWarning, kWaitingForProof,
                          absl::StrCat(message, " (VolumeAttachment ", attachment.meta.name, ")"));
    }
  }
  return detach_failed(context, attachment, absl::FailedPreconditionError(message));
}

kube::Outcome AttachController::detached(const base::Context& context, const kube::Attachment& attachment) {
  const std::string finalizer = engine::attacher_finalizer(attachment.attacher.str());
  if (absl::Status status = release_attachment(context, world_, attachment, finalizer); !status.ok())
    return kube::Retry{status};
  // Not waiting for the watch to say so: the successor is waiting.
  for (const auto& other : world_.attachments.by_index(World::kByVolume, attachment.volume_name)) {
    if (other->meta.name != attachment.meta.name) enqueue(*other);
  }
  return kube::Done{};
}

kube::Outcome AttachController::detach_failed(const base::Context& context,
                                              const kube::Attachment& attachment, const absl::Status& why) {
  say_failed(context, world_, attachment, AttachmentStep::kDetach, why);
  return kube::Retry{why};
}

}  // namespace collage::reconcile
