#include "unit/reconcile/cluster.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace collage::testing {

using base::Json;

Cluster::Cluster(Options given)
    : options(std::move(given)),
      driver(std::make_shared<FakeDriver>(options.driver)),
      driver_used(driver),
      kinds{fake_kind(options.driver)} {
  // A dead process calls nobody; what it had begun counts as under way.
  const auto refuse_the_dead = [this](const base::Context&, drivers::Verb,
                                      const std::string&) -> absl::Status {
    return dead_ ? absl::UnavailableError("the process is dead") : absl::OkStatus();
  };
  driver->before(refuse_the_dead);
  api.put(storage_class());
  play_binder();
}

Cluster::~Cluster() {
  op.reset();
}

void Cluster::play_binder() {
  if (options.protects) {
    api.on_change("persistentvolumes", [this](const FakeStore::Change& change) {
      constexpr char kProtection[] = "kubernetes.io/pv-protection";
      const Json& object = *change.object;
      const std::string name = base::get_string(object, "/metadata/name");
      const Json* finalizers = base::find(object, "/metadata/finalizers");
      const bool has = finalizers != nullptr &&
                       std::find(finalizers->begin(), finalizers->end(), kProtection) != finalizers->end();
      const bool deleting = base::find(object, "/metadata/deletionTimestamp") != nullptr;
      if (change.type == "ADDED" && !has) {
        api.update(kube::kPersistentVolumes, name,
                   [&](Json& json) { json["metadata"]["finalizers"].push_back(kProtection); });
      }
      if (change.type == "MODIFIED" && has && deleting) {
        api.update(kube::kPersistentVolumes, name, [&](Json& json) {
          Json& list = json["metadata"]["finalizers"];
          if (const auto at = std::find(list.begin(), list.end(), kProtection); at != list.end())
            list.erase(at);
        });
      }
    });
  }
  if (!options.binds) return;
  api.on_change("persistentvolumes", [this](const FakeStore::Change& change) {
    if (change.type != "ADDED") return;
    const Json& volume = *change.object;
    const std::string name = base::get_string(volume, "/metadata/name");
    const std::string claim_key = base::get_string(volume, "/spec/claimRef/namespace") + "/" +
                                  base::get_string(volume, "/spec/claimRef/name");
    const auto claim = api.get(kube::kPersistentVolumeClaims, claim_key);
    const bool there = claim.has_value() && base::get_string(*claim, "/metadata/uid") ==
                                                base::get_string(volume, "/spec/claimRef/uid");
    const std::string phase = base::get_string(volume, "/status/phase");
    if (phase == "Bound" || phase == "Released") return;
    api.update(kube::kPersistentVolumes, name,
               [&](Json& json) { json["status"]["phase"] = there ? "Bound" : "Released"; });
    if (!there) return;
    api.update(kube::kPersistentVolumeClaims, claim_key, [&](Json& json) {
      json["spec"]["volumeName"] = name;
      json["status"]["phase"] = "Bound";
    });
  });
  api.on_change("persistentvolumeclaims", [this](const FakeStore::Change& change) {
    if (change.type != "DELETED") return;
    const std::string volume = base::get_string(*change.object, "/spec/volumeName");
    if (volume.empty()) return;
    api.update(kube::kPersistentVolumes, volume, [](Json& json) { json["status"]["phase"] = "Released"; });
  });
}

Cluster::Operator::Operator(Cluster& cluster)
    : alive(cluster),
      client(cluster.api.client(&alive)),
      events(*client, "collage-operator", "collage-0", *cluster.options.clock),
      intent_store(*client, "collage"),
      world(*client, events, cluster.kinds, "collage", cluster.options.watching),
      nodes(std::nullopt),
      provisioner(world, cluster.options.provision),
      reclaimer(world, cluster.options.reclaim),
      attacher(world, &cluster.node_answers, cluster.options.attach),
      intents(std::make_shared<engine::Intents>(intent_store, "fast", *cluster.options.clock)) {
  world.cluster_id = "cluster-1";
  world.cluster_uid = "uid-of-cluster-1";
  if (cluster.options.through_nodes) nodes.emplace(world);
  if (cluster.options.tells_mounts) health.emplace(world);
  const auto changed = [this](const std::string& backend) {
    provisioner.backend_changed(backend);
    reclaimer.backend_changed(backend);
    attacher.backend_changed(backend);
  };
  world.on_refused_backend(changed);
  if (!cluster.options.keeps_backends) return;
  backends.emplace(world, cluster.node_answers, intent_store);
  backends->on_usable(changed);
}

Cluster::Operator::~Operator() {
  stop.request_stop();
  if (backends) backends->stop();
  if (health) health->stop();
  attacher.stop();
  reclaimer.stop();
  provisioner.stop();
  if (nodes) nodes->stop();
  world.stop();
}

void Cluster::start() {
  dead_ = false;
  auto life = std::make_unique<Operator>(*this);
  {
    const std::unique_lock nobody_uses_it(living_);
    op = std::move(life);
  }
  const base::Context context(op->stop.get_token(), *options.clock);
  op->world.start(context);
  ASSERT_TRUE(op->world.wait_synced(context.with_timeout(std::chrono::seconds(20))).ok());
  if (op->nodes) op->nodes->start(context);
  if (op->backends) {
    op->backends->start(context);
  } else {
    use_backend([this](engine::Backend& backend) {
      if (options.tells_mounts) backend.spec.on_mount_lost = "DeletePod";
    });
  }
  op->provisioner.start(context);
  op->reclaimer.start(context);
  op->attacher.start(context);
  if (op->health) op->health->start(context);
}

void Cluster::kill() {
  dead_ = true;
  { const std::unique_lock nobody_uses_it(living_); }
  op.reset();
}

void Cluster::flush_intents() {
  const std::shared_lock lock(living_);
  if (!dead_ && op) (void)op->intents->flush(base::Context().with_timeout(std::chrono::seconds(5)));
}

void Cluster::use_backend(const std::function<void(engine::Backend&)>& change) {
  auto backend = std::make_shared<engine::Backend>();
  backend->spec.name = "fast";
  backend->spec.kind = kinds.front().info.kind;
  backend->system_id = system_id;
  backend->driver = op->nodes ? engine::make_node_proxy(kinds.front(), "fast", *op->nodes) : driver_used;
  backend->intents = op->intents;
  if (change) change(*backend);
  const std::string name = backend->spec.name;
  op->world.backends.set(std::move(backend));
  op->provisioner.backend_changed(name);
  op->reclaimer.backend_changed(name);
  op->attacher.backend_changed(name);
}

void Cluster::drop_backend(const std::string& name) {
  op->world.backends.remove(name);
}

VolumeBuilder Cluster::volume(const std::string& name) {
  const std::string id = "vol-" + name;
  driver->put({.id = id, .name = name, .capacity_bytes = int64_t{1} << 30});
  return a_volume(name)
      .of_driver(kFake)
      .handle("fast/" + id)
      .attribute("collage.storage/system-id", "fake-system")
      .finalizer("external-provisioner.volume.kubernetes.io/finalizer")
      .finalizer("external-attacher/fake-collage-storage");
}

void Cluster::delete_claim(const std::string& name) {
  api.remove(kube::kPersistentVolumeClaims, "default/" + name);
}

bool Cluster::bound(const std::string& claim) const {
  const auto object = api.get(kube::kPersistentVolumeClaims, "default/" + claim);
  return object.has_value() && base::get_string(*object, "/status/phase") == "Bound";
}

std::vector<std::string> Cluster::events(const std::string& reason) const {
  std::vector<std::string> messages;
  for (const Json& event : api.list(kube::kEvents)) {
    if (base::get_string(event, "/reason") == reason) messages.push_back(base::get_string(event, "/message"));
  }
  return messages;
}

bool Cluster::wait_event(const std::string& reason, const std::string& part) {
  const bool came = wait([&] {
    const auto messages = events(reason);
    return std::any_of(messages.begin(), messages.end(),
                       [&](const std::string& text) { return absl::StrContains(text, part); });
  });
  if (!came) {
    for (const std::string& text : events(reason)) ADD_FAILURE() << reason << ": " << text;
  }
  return came;
}

std::map<std::string, std::string> Cluster::intents() const {
  std::map<std::string, std::string> entries;
  const auto object = api.get(kube::kConfigMaps, "collage/collage-intents-fast");
  if (!object.has_value()) return entries;
  if (const Json* data = base::find(*object, "/data")) {
    for (const auto& [key, value] : data->items()) entries[key] = value.get<std::string>();
  }
  return entries;
}

bool Cluster::no_intents() const {
  if (!op->intents->open().empty()) return false;
  return op->intents->flush(base::Context().with_timeout(std::chrono::seconds(5))).ok() && intents().empty();
}

}  // namespace collage::testing
