#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "drivers/driver.h"
#include "operator/engine/claim_request.h"
#include "operator/engine/names.h"
#include "operator/reconcile/provision.h"
#include "operator/reconcile/provision_place.h"

// From a claim to the durable note that its create has begun. Nothing here leaves anything behind at the
// provider: a kill anywhere before the intent is durable leaves nothing at all, a kill after it leaves the
// intent, which the next process replays.
namespace collage::reconcile {
namespace {

// How long until claims look again at a backend whose intents are being loaded; the replay itself brings them
// earlier.
constexpr std::chrono::seconds kReplayWait{5};

std::vector<std::string> strings(const std::vector<kube::Interned>& list) {
  std::vector<std::string> result;
  result.reserve(list.size());
  for (const kube::Interned& text : list) result.push_back(text.str());
  return result;
}

engine::ClaimFacts facts_of(const kube::Claim& claim) {
  engine::ClaimFacts facts;
  facts.uid = claim.meta.uid;
  facts.name_space = claim.meta.name_space.str();
  facts.name = claim.meta.name;
  facts.access_modes = strings(claim.access_modes);
  facts.block = claim.block;
  facts.requested_bytes = claim.requested_bytes;
  facts.limit_bytes = claim.limit_bytes;
  return facts;
}

engine::TemplateValues template_values(const LiveClaim& live) {
  const kube::Claim& claim = *live.claim;
  return {engine::volume_name(claim.meta.uid), claim.meta.name_space.str(), claim.meta.name,
          live.annotations};
}

}  // namespace

kube::Outcome Provisioner::begin(const base::Context& context, const kube::Claim& cached,
                                 const drivers::Kind& kind, const ClassPtr& storage_class) {
  const std::string key = Id::of(cached).to_key();
  const auto parameters = engine::parse_class_parameters(storage_class->parameters);
  if (!parameters.ok()) {
    return refuse(cached, base::annotate(parameters.status(),
                                         absl::StrCat("StorageClass \"", storage_class->meta.name, "\"")));
  }
  wait_for(key, parameters->backend);
  if (world_.being_set_up(parameters->backend)) return kube::RequeueAfter{options_.slow_retry};
  const BackendPtr backend = world_.backends.get(parameters->backend);
  if (const auto object = world_.backend_objects.get(parameters->backend);
      backend == nullptr && object != nullptr) {
    return refuse(cached, absl::UnavailableError(absl::StrCat("StorageBackend \"", parameters->backend,
                                                              "\" is not ready: ", why_not_ready(*object))));
  }
  if (absl::Status status = judge_backend(parameters->backend, backend.get(), kind, storage_class->meta.name);
      !status.ok()) {
    return refuse(cached, status);
  }
  if (!replayed(*backend)) {
    replayer_.enqueue(parameters->backend);
    return kube::RequeueAfter{kReplayWait};
  }
  if (absl::Status status = check_namespace(*backend, cached.meta.name_space.str()); !status.ok()) {
    return absl::IsPermissionDenied(status) ? refuse(cached, status) : retry(cached, status);
  }
  if (backend->intents->room() == 0) return wait_in_line(cached, *backend);
  return begin_on(context, cached, kind, storage_class, *parameters, backend);
}

kube::Outcome Provisioner::begin_on(const base::Context& context, const kube::Claim& cached,
                                    const drivers::Kind& kind, const ClassPtr& storage_class,
                                    const engine::ClassParameters& parameters, const BackendPtr& backend) {
  const absl::StatusOr<LiveClaim> live =
      live_claims_.get(context, cached.meta.key(), !parameters.secrets.empty());
  if (!live.ok()) return kube::Retry{live.status()};
  const std::shared_ptr<const kube::Claim>& claim = live->claim;
  if (claim == nullptr) return kube::Done{};
  if (claim->meta.uid != cached.meta.uid) return kube::Done{};
  const ProvisionFacts facts{claim.get(), &kind, storage_class.get(), false, false};
  // It has changed since: the informer brings it again.
  if (claim->storage_class != cached.storage_class ||
      decide_provision(facts).step != ProvisionStep::kProvision)
    return kube::Done{};

  absl::StatusOr<Place> place = find_place(world_, kind, *claim, *storage_class);
  if (!place.ok()) {
    const bool other_node_helps =
        absl::IsNotFound(place.status()) || absl::IsFailedPrecondition(place.status());
    if (other_node_helps && !claim->selected_node.empty()) return reschedule(context, *claim, place.status());
    return absl::IsInvalidArgument(place.status()) ? refuse(*claim, place.status())
                                                   : retry(*claim, place.status());
  }

  auto work = std::make_shared<Work>();
  work->id = Id::of(*claim);
  work->backend = backend->spec.name;
  work->intents = backend->intents;
  work->storage_class = storage_class;
  work->place_matters = place->matters;
  work->begun = context.clock().now();
  work->record.claim = facts_of(*claim);
  work->record.class_name = storage_class->meta.name;
  work->record.class_uid = storage_class->meta.uid;
  work->record.node = claim->selected_node;
  if (!place->requirement.preferred.empty()) work->record.segment = place->requirement.preferred.front();

  auto request =
      engine::make_create_request({work->record.claim, parameters, storage_class->mount_options, kind.info,
                                   place->requirement, world_.cluster_id, storage_class->meta.name});
  if (!request.ok()) return refuse(*claim, request.status());
  work->request = *std::move(request);
  auto secrets = resolve_secrets(parameters, template_values(*live));
  if (!secrets.ok()) return refuse(*claim, secrets.status());
  work->secrets = *std::move(secrets);
  if (kube::Outcome outcome = record_intent(context, work, *claim, *backend);
      !std::holds_alternative<kube::Done>(outcome)) {
    return outcome;
  }
  return create(context, work, *claim, kind, *backend);
}

absl::Status Provisioner::check_namespace(const engine::Backend& backend,
                                          const std::string& name_space) const {
  if (!backend.spec.allowed_namespaces.has_value()) return absl::OkStatus();
  const auto object = world_.namespaces.get(name_space);
  if (object == nullptr)
    return absl::UnavailableError(absl::StrCat("Namespace ", name_space, " is not known (yet)"));
  if (backend.spec.allowed_namespaces->matches(object->labels)) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("StorageBackend \"", backend.spec.name,
                   "\" spec.allowedNamespaces does not match the labels of namespace \"", name_space,
                   "\": label the namespace, or use a class of another backend"));
}

// Done: the intent is durable, the work known.
kube::Outcome Provisioner::record_intent(const base::Context& context, const WorkPtr& work,
                                         const kube::Claim& claim, const engine::Backend& backend) {
  const std::string name = engine::volume_name(claim.meta.uid);
  const absl::StatusOr<std::string> record = engine::encode_intent(work->record);
  if (!record.ok()) return refuse(claim, record.status());
  // What the volume will have, not what is asked for: limits hold exactly.
  const absl::StatusOr<int64_t> bytes = drivers::volume_size(backend.driver->info(), *work->request);
  if (!bytes.ok()) return refuse(claim, bytes.status());
  if (absl::Status status = world_.usage.reserve(work->backend, backend.spec.limits, name, *bytes);
      !status.ok()) {
    if (absl::IsOutOfRange(status)) return refuse(claim, status);
    waits_for_room(work->id.to_key(), work->backend);
    return retry(claim, status);
  }
  {
    std::lock_guard lock(mutex_);
    works_[work->id.uid] = work;
  }
  if (absl::Status status = work->intents->begin(context, work->id.uid, *record); !status.ok()) {
    end(*work);  // the driver was not called: there is no volume
    wait_for(work->id.to_key(), work->backend);
    if (absl::IsResourceExhausted(status)) return wait_in_line(claim, backend);
    status = base::annotate(status, "record that the create has begun");
    // The others end by themselves, in silence: another process leads, this one stops, the backend is going.
    if (!absl::IsPermissionDenied(status) && !absl::IsInvalidArgument(status)) return kube::Retry{status};
    return retry(claim, absl::Status(status.code(),
                                     absl::StrCat(status.message(),
                                                  "; the operator must be able to write this ConfigMap: see "
                                                  "its Role, and the quotas and webhooks of the namespace")));
  }
  return kube::Done{};
}

// Of a create that an earlier process began.
absl::Status Provisioner::read_secrets(const base::Context& context, Work& work) {
  COLLAGE_ASSIGN_OR_RETURN(const engine::ClassParameters parameters,
                           engine::parse_class_parameters(work.storage_class->parameters));
  if (parameters.secrets.empty()) {
    work.secrets.emplace();
    return absl::OkStatus();
  }
  COLLAGE_ASSIGN_OR_RETURN(const LiveClaim live,
                           live_claims_.get(context, {work.id.name_space, work.id.name}, true));
  if (live.claim == nullptr)
    return absl::NotFoundError(absl::StrCat("claim ", work.id.name_space, "/", work.id.name, " is gone"));
  COLLAGE_ASSIGN_OR_RETURN(work.secrets, resolve_secrets(parameters, template_values(live)));
  return absl::OkStatus();
}

absl::Status Provisioner::restore_request(Work& work, const drivers::Kind& kind) const {
  if (work.storage_class == nullptr || work.storage_class->meta.uid != work.record.class_uid) {
    return absl::FailedPreconditionError(
        absl::StrCat("StorageClass \"", work.record.class_name, "\" is not the one it was begun with"));
  }
  COLLAGE_ASSIGN_OR_RETURN(const engine::ClassParameters parameters,
                           engine::parse_class_parameters(work.storage_class->parameters));
  const engine::TopologyRequirement place = engine::topology_of(work.record);
  COLLAGE_ASSIGN_OR_RETURN(
      drivers::CreateRequest request,
      engine::make_create_request({work.record.claim, parameters, work.storage_class->mount_options,
                                   kind.info, place, world_.cluster_id}));
  work.place_matters = !work.record.segment.empty();
  work.request = std::move(request);
  return absl::OkStatus();
}

}  // namespace collage::reconcile
