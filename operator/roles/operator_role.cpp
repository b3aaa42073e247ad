#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/status.h"
#include "drivers/registry.h"
#include "operator/kube/lease.h"
#include "operator/reconcile/attach.h"
#include "operator/reconcile/backend_controller.h"
#include "operator/reconcile/config_map_intents.h"
#include "operator/reconcile/mount_health.h"
#include "operator/reconcile/provision.h"
#include "operator/reconcile/reclaim.h"
#include "operator/reconcile/storage_node_controller.h"
#include "operator/reconcile/storage_node_operations.h"
#include "operator/roles/common.h"
#include "operator/roles/roles.h"

namespace collage::roles {
namespace {

namespace log = base::log;

struct Options : CommonOptions {
  std::string name_space;
  std::string pod_name;
  std::string cluster_id;
};

// The UID of kube-system tells this cluster from all others, and stands for its name when none is given.
absl::StatusOr<std::string> cluster_uid(const base::Context& context, kube::Client& client) {
  auto object = client.get(context, kube::kNamespaces, {"", "kube-system"});
  if (!object.ok())
    return base::annotate(object.status(), "read the namespace kube-system for the cluster's identity");
  return base::get_string(*object, "/metadata/uid");
}

// All controllers over one world. Made before the informers start, started once this process leads.
struct Controllers {
  Controllers(reconcile::World& world, kube::Client& client)
      : nodes(world),
        intents(client, world.name_space),
        backends(world, nodes, intents),
        storage_nodes(world),
        mounts(world),
        provisioner(world),
        reclaimer(world),
        attacher(world, &nodes) {
    const auto changed = [this](const std::string& backend) {
      provisioner.backend_changed(backend);
      reclaimer.backend_changed(backend);
      attacher.backend_changed(backend);
    };
    backends.on_usable(changed);
    world.on_refused_backend(changed);
    backends.on_lost_attachment([this](const std::string& attachment) { attacher.attach_again(attachment); });
  }

  void start(const base::Context& context) {
    nodes.start(context);
    storage_nodes.start(context);
    mounts.start(context);
    backends.start(context);
    // What names a backend waits until that was looked at. As a rule all are within a moment, and nothing is
    // begun twice; a storage system that hangs delays its own claims and no others.
    const base::Context patience = context.with_timeout(std::chrono::seconds(1));
    while (!backends.settled().ok() && patience.sleep_for(std::chrono::milliseconds(20)).ok()) {
    }
    provisioner.start(context);
    reclaimer.start(context);
    attacher.start(context);
  }

  void stop() {
    attacher.stop();
    reclaimer.stop();
    provisioner.stop();
    backends.stop();
    mounts.stop();
    storage_nodes.stop();
    nodes.stop();
  }

  reconcile::StorageNodeOperations nodes;
  reconcile::ConfigMapIntents intents;
  reconcile::BackendController backends;
  reconcile::StorageNodeController storage_nodes;
  reconcile::MountHealth mounts;
  reconcile::Provisioner provisioner;
  reconcile::Reclaimer reclaimer;
  reconcile::AttachController attacher;
};

absl::Status flush_intents(const base::Context& context, reconcile::World& world) {
  absl::Status status;
  for (const auto& backend : world.backends.list()) {
    if (backend->intents) status.Update(backend->intents->flush(context));
  }
  return status;
}

// Only a leader writes a StorageBackend's status: where there is none nobody has led.
kube::MissingLease missing_lease(const reconcile::World& world) {
  for (const auto& object : world.backend_objects.list()) {
    if (base::find(*object->json, "/status") != nullptr) return kube::MissingLease::kDeleted;
  }
  return kube::MissingLease::kFree;
}

int run(const Options& options) {
  base::Process process;
  const base::Context context(process.stop());
  auto config = kube::find_config(options.kubeconfig, options.kube_context);
  if (!config.ok()) return fail(context, "no API server to speak to", config.status());
  const std::string name_space = options.name_space.empty() ? config->name_space : options.name_space;
  const std::string identity = absl::StrCat(options.pod_name.empty() ? "collage-operator" : options.pod_name,
                                            "_", base::random_hex(4));
  const std::string agent = absl::StrCat("collage-operator/", kVersion);

  // The lease has a client of its own: what it needs never waits behind other work, and no fence holds it
  // back.
  auto lease_client = kube::make_client(*config, nullptr, agent);
  if (!lease_client.ok())
    return fail(context, "the API server's address or credentials cannot be used", lease_client.status());
  kube::Lease lease(**lease_client, {.key = {name_space, "collage-operator"}, .identity = identity});
  auto client = kube::make_client(*config, &lease, agent);
  if (!client.ok())
    return fail(context, "the API server's address or credentials cannot be used", client.status());

  kube::EventRecorder events(**client, "collage-operator", options.pod_name);
  reconcile::World world(**client, events, drivers::kinds(), name_space);
  world.leads = [&lease] {
    const absl::Status fence = lease.holds_for().status();
    return fence.ok() ? fence
                      : absl::CancelledError(absl::StrCat("this process leads no more: ", fence.message()));
  };
  Controllers controllers(world, **client);

  base::HttpServer server;
  server.add_readiness_check("caches", [&] {
    return context.stopped() ? absl::UnavailableError("stopping")
                             : world.wait_synced(context.with_timeout(std::chrono::nanoseconds(0)));
  });
  server.add_readiness_check("API server", [&] { return (*client)->server_health(); });
  server.add_health_check("leader election", [&] { return lease.healthy(); });
  auto port = server.listen(options.listen);
  if (!port.ok()) return fail(context, "--listen cannot be used", port.status());
  const base::MemoryTrimmer trimmer;
  log::info(context, "collage operator", {{"version", kVersion}, {"identity", identity}, {"port", *port}});

  if (!wait_for_api_server(context, **lease_client, config->server).ok()) return 0;
  auto uid = cluster_uid(context, **client);
  if (!uid.ok()) return fail(context, "the cluster has no identity", uid.status());
  world.cluster_uid = *uid;
  world.cluster_id = options.cluster_id.empty() ? *uid : options.cluster_id;

  // A replica that does not lead keeps its caches warm, so that it can take over at once.
  world.start(context);
  int code = 0;
  if (world.wait_synced(context).ok() && lease.acquire(context, missing_lease(world)).ok()) {
    log::info(context, "leading", {{"identity", identity}});
    lease.keep(context, [&] {
      log::error(context, "the lease is lost: another replica may lead, this one ends",
                 {{"identity", identity}});
      code = 1;
      process.request_stop();
    });
    controllers.start(context);
    process.wait();
  }
  log::info(context, "stopping");
  const base::Context last = base::Context().with_timeout(std::chrono::seconds(10));
  controllers.stop();
  absl::Status flushed = flush_intents(last, world);
  if (!flushed.ok()) log::warning(last, "finished intents stay until the next start", {{"error", flushed}});
  events.flush(last.with_timeout(std::chrono::seconds(2)));
  world.stop();
  lease.release(last);
  server.stop();
  return code;
}

}  // namespace

int run_operator(int argc, char** argv) {
  Options options;
  CLI::App app("Reconciles StorageBackends, claims, volumes and attachments.", "collage operator");
  add_common_options(app, options);
  app.add_option("--namespace", options.name_space,
                 "namespace of the Lease, the intents and the Secrets; without it the pod's own");
  app.add_option("--pod-name", options.pod_name, "shown in the Lease and in events");
  app.add_option("--cluster-id", options.cluster_id,
                 "tells this cluster's volumes from others'; without it the UID of kube-system");
  if (int code = parse_options(app, argc, argv); code >= 0) return code;
  base::share_arenas();
  if (absl::Status begun = begin(options); !begun.ok()) return fail({}, "bad options", begun);
  return run(options);
}

}  // namespace collage::roles
