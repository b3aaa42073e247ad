#include "operator/reconcile/world.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "operator/engine/names.h"

namespace collage::reconcile {
namespace {

// Of a volume of ours, "" for all others.
std::string backend_of(const std::vector<drivers::Kind>& kinds, const kube::Volume& volume) {
  const std::string kind = engine::kind_of_csi_driver(volume.driver);
  for (const drivers::Kind& known : kinds) {
    if (known.info.kind != kind) continue;
    const absl::StatusOr<drivers::Handle> handle = drivers::parse_handle(volume.handle);
    return handle.ok() ? handle->backend : "";
  }
  return "";
}

kube::ReflectorOptions own_capacities(const std::string& name_space, kube::ReflectorOptions options) {
  options.selector.name_space = name_space;
  options.selector.label_selector = absl::StrCat(World::kManagedByLabel, "=", World::kManagedBy);
  return options;
}

}  // namespace

World::World(kube::Client& client, kube::EventRecorder& events, const std::vector<drivers::Kind>& kinds,
             std::string name_space, const kube::ReflectorOptions& watching)
    : client(client),
      events(events),
      kinds(kinds),
      name_space(std::move(name_space)),
      claims(client, watching),
      volumes(client, watching),
      attachments(client, watching),
      classes(client, watching),
      csi_nodes(client, watching),
      nodes(client, watching),
      namespaces(client, watching),
      csi_drivers(client, watching),
      capacities(client, own_capacities(this->name_space, watching)),
      backend_objects(client, watching),
      storage_nodes(client, watching) {
  volumes.add_index(kByBackend, [this](const kube::Volume& volume) {
    return std::vector<std::string>{backend_of(this->kinds, volume)};
  });
  attachments.add_index(kByVolume, [](const kube::Attachment& attachment) {
    return std::vector<std::string>{attachment.volume_name};
  });
  // First of all handlers: whoever is told of a change finds it counted.
  volumes.add_handler([this](const auto& before, const auto& after) {
    const kube::Volume& volume = after != nullptr ? *after : *before;
    const std::string backend = backend_of(this->kinds, volume);
    if (!backend.empty()) usage.set(backend, volume.meta.name, after != nullptr ? after->capacity_bytes : -1);
  });
}

void World::start(const base::Context& context) {
  backend_objects.start(context);
  classes.start(context);
  nodes.start(context);
  namespaces.start(context);
  csi_drivers.start(context);
  capacities.start(context);
  csi_nodes.start(context);
  storage_nodes.start(context);
  volumes.start(context);
  attachments.start(context);
  claims.start(context);
}

absl::Status World::wait_synced(const base::Context& context) const {
  COLLAGE_RETURN_IF_ERROR(base::annotate(backend_objects.wait_synced(context), "list StorageBackends"));
  COLLAGE_RETURN_IF_ERROR(base::annotate(classes.wait_synced(context), "list StorageClasses"));
  COLLAGE_RETURN_IF_ERROR(base::annotate(nodes.wait_synced(context), "list Nodes"));
  COLLAGE_RETURN_IF_ERROR(base::annotate(namespaces.wait_synced(context), "list Namespaces"));
  COLLAGE_RETURN_IF_ERROR(base::annotate(csi_drivers.wait_synced(context), "list CSIDrivers"));
  COLLAGE_RETURN_IF_ERROR(base::annotate(capacities.wait_synced(context), "list CSIStorageCapacities"));
  COLLAGE_RETURN_IF_ERROR(base::annotate(csi_nodes.wait_synced(context), "list CSINodes"));
  COLLAGE_RETURN_IF_ERROR(base::annotate(storage_nodes.wait_synced(context), "list StorageNodes"));
  COLLAGE_RETURN_IF_ERROR(base::annotate(volumes.wait_synced(context), "list PersistentVolumes"));
  COLLAGE_RETURN_IF_ERROR(base::annotate(attachments.wait_synced(context), "list VolumeAttachments"));
  return base::annotate(claims.wait_synced(context), "list PersistentVolumeClaims");
}

void World::stop() {
  claims.stop();
  attachments.stop();
  volumes.stop();
  storage_nodes.stop();
  csi_nodes.stop();
  capacities.stop();
  csi_drivers.stop();
  namespaces.stop();
  nodes.stop();
  classes.stop();
  backend_objects.stop();
}

const drivers::Kind* World::kind_of_driver(std::string_view csi_driver) const {
  const std::string name = engine::kind_of_csi_driver(csi_driver);
  if (name.empty()) return nullptr;
  for (const drivers::Kind& kind : kinds) {
    if (kind.info.kind == name) return &kind;
  }
  return nullptr;
}

bool World::being_set_up(const std::string& backend) const {
  if (backends.get(backend) != nullptr) return false;
  const auto object = backend_objects.get(backend);
  return object != nullptr && why_not_ready(*object).empty();
}

std::string World::why_not_in_use(const std::string& backend) const {
  const auto object = backend_objects.get(backend);
  if (object == nullptr) return "create it again";
  const std::string why = why_not_ready(*object);
  return why.empty() ? "it was not looked at yet" : why;
}

void World::on_refused_backend(std::function<void(const std::string& backend)> told) {
  backend_objects.add_handler([told = std::move(told)](const auto& before, const auto& after) {
    const bool said = before != nullptr && !why_not_ready(*before).empty();
    if (after != nullptr && !said && !why_not_ready(*after).empty()) told(after->meta.name);
  });
}

std::string why_not_ready(const kube::BackendObject& backend) {
  const base::Json* const conditions = base::find(*backend.json, "/status/conditions");
  if (conditions == nullptr || !conditions->is_array()) return "";
  for (const base::Json& condition : *conditions) {
    if (base::get_string(condition, "/type") != "Ready" || base::get_string(condition, "/status") != "False")
      continue;
    return absl::StrCat(base::get_string(condition, "/reason"), ": ",
                        base::get_string(condition, "/message"));
  }
  return "";
}

}  // namespace collage::reconcile
