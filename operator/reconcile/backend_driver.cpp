// The way to a backend's storage: its driver, the credentials it is made with, whether it answers, and who it
// says it is.
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status.h"
#include "drivers/metered_driver.h"
#include "operator/engine/fenced_driver.h"
#include "operator/reconcile/backend_controller.h"

namespace collage::reconcile {
namespace {

constexpr auto kProbeEvery = std::chrono::seconds(60);
constexpr auto kProbeTimeout = std::chrono::seconds(30);
// What was refused may be let in later; asked seldom, since many systems lock an account after some tries.
constexpr auto kRefusedAgain = std::chrono::minutes(5);
constexpr auto kUnansweredAgain = std::chrono::seconds(10);

// What the storage's answer says of the credentials it was asked with.
bool is_about_credentials(const absl::Status& status) {
  return absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status);
}

// A driver that does not look at what is expected of it is not taken at its word.
absl::Status judge_system(const absl::StatusOr<drivers::ProbeResult>& probed, const std::string& expected) {
  if (!probed.ok()) return probed.status();
  if (expected.empty() || probed->system_id == expected) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the storage system is ", probed->system_id, " now, and the volumes of this backend were made on ",
      expected, ": bring that one back, or make a StorageBackend of another name for the new one"));
}

}  // namespace

absl::Status BackendController::prepare(const base::Context& context, const kube::BackendObject& object,
                                        const drivers::Kind& kind, engine::BackendSpec parsed,
                                        Memory& memory) {
  if (memory.system_id.empty()) memory.system_id = base::get_string(*object.json, "/status/systemID");
  if (!world_.cluster_uid.empty() &&
      base::get_string(*object.json, "/status/clusterUID") == world_.cluster_uid)
    memory.registered = true;
  const auto spec = std::make_shared<const engine::BackendSpec>(std::move(parsed));
  COLLAGE_RETURN_IF_ERROR(prepare_driver(context, object, kind, *spec, memory));
  memory.spec = spec;
  if (!memory.intents)
    memory.intents = std::make_shared<engine::Intents>(intent_store_, spec->name, context.clock());
  if (!memory.intents->loaded()) {
    COLLAGE_RETURN_IF_ERROR(
        base::annotate(memory.intents->load(context), "load the intents of creates under way"));
  }
  return absl::OkStatus();
}

// Other storage under the same name is not let in by the API server: a block that changed is new detail of
// the same one.
absl::Status BackendController::prepare_driver(const base::Context& context,
                                               const kube::BackendObject& object, const drivers::Kind& kind,
                                               const engine::BackendSpec& spec, Memory& memory) {
  const bool same =
      memory.driver && memory.spec && memory.spec->kind == spec.kind && *memory.spec->block == *spec.block;
  if (!kind.info.credentials.empty()) {
    if (!same) memory.refused.clear();
    return use_credentials(context, object, kind, spec, memory);
  }
  secrets_.use(root_, spec.name, "");
  if (same) return absl::OkStatus();
  if (kind.info.control == drivers::ControlPlace::kAnywhere) {
    COLLAGE_ASSIGN_OR_RETURN(memory.driver, drivers::make_driver(kind, {.backend = spec.name,
                                                                        .block = spec.block.get(),
                                                                        .system_id = memory.system_id}));
  } else {
    memory.driver = drivers::metered(engine::make_node_proxy(kind, spec.name, nodes_));
  }
  memory.driver = engine::make_fenced_driver(std::move(memory.driver), world_.leads);
  memory.probe = absl::UnavailableError("not probed yet");
  memory.probed_at = {};
  return absl::OkStatus();
}

// The Secret as it is now takes the place of the one in use once the storage system has accepted it. Until
// then, and when it never does, the driver with the old one goes on.
absl::Status BackendController::use_credentials(const base::Context& context,
                                                const kube::BackendObject& object, const drivers::Kind& kind,
                                                const engine::BackendSpec& spec, Memory& memory) {
  secrets_.use(root_, spec.name, spec.credentials_secret);
  const kube::Key key{world_.name_space, spec.credentials_secret};
  const auto secrets = read_credentials(context, world_.client, key, kind.info.credentials);
  if (!secrets.ok()) {
    // The API server's trouble says nothing of the Secret, and a driver that works goes on.
    if (is_about_the_secret(secrets.status())) memory.credentials_status = secrets.status();
    return is_about_the_secret(secrets.status()) || memory.driver ? absl::OkStatus() : secrets.status();
  }
  const bool same_block = memory.spec && memory.spec->kind == spec.kind && *memory.spec->block == *spec.block;
  if (memory.driver && same_block && *secrets == memory.credentials) {
    if (memory.credentials_good) memory.credentials_status = absl::OkStatus();
    return absl::OkStatus();
  }
  const auto now = context.clock().now();
  const std::chrono::nanoseconds pause =
      absl::IsUnavailable(memory.credentials_status) ? kUnansweredAgain : kRefusedAgain;
  if (memory.driver && *secrets == memory.refused && now - memory.refused_at < pause) return absl::OkStatus();
  memory.refused = *secrets;
  memory.refused_at = now;
  const std::string remedy =
      absl::StrCat("correct ", absl::StrJoin(kind.info.credentials, ", "), " there (kubectl -n ",
                   key.name_space, " edit secret ", key.name, ")");
  const auto refuse = [&](const absl::Status& why, const std::string& what, const std::string& advice) {
    const absl::Status clean = base::without_secrets(why, *secrets);
    memory.credentials_status =
        absl::Status(clean.code(), absl::StrCat("spec.credentialsSecret: Secret ", key.to_string(), " ", what,
                                                " (", clean.message(), "): ", advice));
  };
  auto made = drivers::make_driver(kind, {.backend = spec.name,
                                          .block = spec.block.get(),
                                          .credentials = *secrets,
                                          .system_id = memory.system_id});
  if (!made.ok()) {
    refuse(made.status(), "cannot be used", remedy);
    return absl::OkStatus();
  }
  std::shared_ptr<drivers::Driver> candidate = engine::make_fenced_driver(*std::move(made), world_.leads);
  const auto probed = candidate->probe(
      context.with_timeout(kProbeTimeout),
      {.initialize = memory.system_id.empty(), .expected_system_id = memory.system_id, .cluster = cluster()});
  const absl::Status judged = judge_system(probed, memory.system_id);
  if (is_about_credentials(judged)) {
    refuse(judged, "is not accepted by the storage system", remedy);
  } else if (absl::IsFailedPrecondition(judged) && memory.credentials_good) {
    refuse(judged, "leads to another storage system than the volumes were made on", remedy);
  } else if (!judged.ok() && memory.credentials_good) {
    refuse(judged, "changed, and the storage system cannot be asked whether it is good",
           "this is tried again by itself");
    memory.credentials_status = absl::UnavailableError(memory.credentials_status.message());
  } else {
    // Accepted; or the first ones, and the storage system is in trouble of its own, which the probe shows.
    memory.credentials_status = absl::OkStatus();
  }
  const bool first = !memory.credentials_good;
  if (!memory.credentials_status.ok() && !first) {
    base::log::warning(context, "changed credentials are not taken, the earlier ones stay in use",
                       {{"backend", spec.name}, {"error", memory.credentials_status}});
    return absl::OkStatus();
  }
  if (judged.ok() && !first) {
    world_.events.event(kube::event_target(object), kube::EventType::kNormal, "CredentialsChanged",
                        absl::StrCat("The storage system accepts the changed Secret ", key.to_string(),
                                     "; it is used from now on."));
  }
  memory.driver = std::move(candidate);
  memory.credentials = *secrets;
  memory.refused.clear();
  memory.probed_at = now;
  take_probe(kind, judged, probed.ok() ? *probed : drivers::ProbeResult{}, memory);
  return absl::OkStatus();
}

// Learns from a probe. While the storage says that it is another one, all operations on volumes stop: nothing
// is done to it.
void BackendController::take_probe(const drivers::Kind& kind, const absl::Status& status,
                                   const drivers::ProbeResult& result, Memory& memory) {
  memory.probe = base::without_secrets(status, memory.credentials);
  const bool known = !memory.system_id.empty();
  memory.identity = known && absl::IsFailedPrecondition(status) ? memory.probe : absl::OkStatus();
  if (!kind.info.credentials.empty()) {
    if (status.ok()) {
      memory.credentials_good = true;
      memory.credentials_status = absl::OkStatus();
    } else if (is_about_credentials(status)) {
      memory.credentials_good = false;
      if (memory.credentials_status.ok()) memory.credentials_status = memory.probe;
    }
  }
  if (!status.ok()) return;
  if (!known) memory.system_id = result.system_id;
  if (kind.info.control != drivers::ControlPlace::kAnywhere) return;
  memory.cluster_uids = result.cluster_uids;
  memory.registered = true;
}

void BackendController::probe(const base::Context& context, const drivers::Kind& kind, Memory& memory) {
  const auto now = context.clock().now();
  // Where nodes reach the storage, their agents look after it all the time; the one thing asked for is its
  // identity, once.
  if (kind.info.control == drivers::ControlPlace::kOwnerNode ||
      (kind.info.control == drivers::ControlPlace::kAnyNode && !memory.system_id.empty())) {
    memory.probe = absl::OkStatus();
    return;
  }
  const bool refused = !kind.info.credentials.empty() && is_about_credentials(memory.probe);
  if (memory.probe.ok() && now - memory.probed_at < kProbeEvery) return;
  if (refused && now - memory.probed_at < kRefusedAgain) return;
  memory.probed_at = now;
  const bool here = kind.info.control == drivers::ControlPlace::kAnywhere;
  const auto result = memory.driver->probe(context.with_timeout(kProbeTimeout),
                                           {.initialize = memory.system_id.empty(),
                                            .expected_system_id = memory.system_id,
                                            .cluster = here ? cluster() : drivers::ClusterIdentity{}});
  take_probe(kind, judge_system(result, memory.system_id), result.ok() ? *result : drivers::ProbeResult{},
             memory);
}

drivers::ClusterIdentity BackendController::cluster() const {
  if (world_.cluster_uid.empty()) return {};
  return {world_.cluster_id, world_.cluster_uid};
}

absl::Status BackendController::register_cluster(const base::Context& context, const drivers::Kind& kind,
                                                 Memory& memory) {
  if (memory.registered || world_.cluster_uid.empty()) return absl::OkStatus();
  if (kind.info.control == drivers::ControlPlace::kOwnerNode) {
    memory.registered = true;  // a node's own disk knows one cluster: that of the node
    return absl::OkStatus();
  }
  const auto result = memory.driver->probe(context.with_timeout(kProbeTimeout),
                                           {.expected_system_id = memory.system_id, .cluster = cluster()});
  if (!result.ok()) return base::annotate(result.status(), "register this cluster with the storage");
  memory.cluster_uids = result->cluster_uids;
  memory.registered = true;
  return absl::OkStatus();
}

absl::Status BackendController::judge_cluster_of(const kube::BackendObject& object,
                                                 const Memory& memory) const {
  std::vector<std::string> uids = memory.cluster_uids;
  uids.push_back(base::get_string(*object.json, "/status/clusterUID"));
  return judge_cluster(
      world_.cluster_uid, world_.cluster_id, uids,
      base::get_string(*object.json, "/metadata/annotations/collage.storage~1cluster-is-gone"),
      object.meta.name);
}

void BackendController::publish_backend(const kube::BackendObject& object, Memory& memory,
                                        const absl::Status& ready) {
  auto backend = std::make_shared<engine::Backend>();
  backend->spec = *memory.spec;
  backend->uid = object.meta.uid;
  backend->system_id = memory.system_id;
  backend->driver = memory.driver;
  backend->intents = memory.intents;
  backend->ready = ready;
  backend->identity = memory.identity;
  const bool first = !memory.published;
  // A changed spec may help a claim too: a limit that was raised, a namespace that was let in.
  const bool news = first || memory.ready != ready || memory.identity.ok() != memory.told_identity ||
                    memory.generation != object.meta.generation;
  memory.generation = object.meta.generation;
  memory.ready = ready;
  memory.told_identity = memory.identity.ok();
  memory.published = true;
  world_.backends.set(std::move(backend));
  if (news && usable_) usable_(object.meta.name);
  if (first) survey_.soon(object.meta.name);
}

}  // namespace collage::reconcile
