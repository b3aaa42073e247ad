#include "operator/reconcile/backend_controller.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status.h"
#include "drivers/codec.h"
#include "operator/engine/fenced_driver.h"
#include "operator/engine/names.h"
#include "operator/reconcile/csi_driver.h"
#include "operator/reconcile/storage_classes.h"

namespace collage::reconcile {
namespace {

using base::Json;

constexpr auto kResync = std::chrono::seconds(60);      // looks again; writes nothing when nothing changed
constexpr auto kProbeAgain = std::chrono::seconds(10);  // after a failure
constexpr auto kProbeTimeout = std::chrono::seconds(30);
constexpr auto kCountLater = std::chrono::seconds(10);  // counts and room in the status may lag by this much

// The Secret's data, decoded. The message names the Secret and the field that names it.
absl::StatusOr<base::Secrets> read_secret(const base::Context& context, kube::Client& client,
                                          const kube::Key& key) {
  auto object = client.get(context, kube::kSecrets, key);
  if (!object.ok()) {
    return absl::Status(object.status().code(),
                        absl::StrCat("spec.credentialsSecret: Secret ", key.to_string(),
                                     " cannot be read: ", object.status().message()));
  }
  base::Secrets secrets;
  const Json* data = base::find(*object, "/data");
  if (data == nullptr || !data->is_object()) return secrets;
  for (const auto& [name, value] : data->items()) {
    std::string decoded;
    if (!value.is_string() || !absl::Base64Unescape(value.get_ref<const std::string&>(), &decoded)) {
      return absl::InvalidArgumentError(
          absl::StrCat("Secret ", key.to_string(), ": data.", name, " is not base64"));
    }
    secrets.emplace(name, base::Secret(decoded));
  }
  return secrets;
}

// What a node says of backends, without how much room it measured.
Json without_room(Json backends) {
  if (!backends.is_array()) return backends;
  for (Json& backend : backends) {
    if (backend.is_object() && backend.contains("capacity")) backend["capacity"] = true;
  }
  return backends;
}

}  // namespace

BackendController::BackendController(World& world, engine::NodeOperations& nodes,
                                     engine::IntentStore& intents)
    : world_(world),
      nodes_(nodes),
      intent_store_(intents),
      capacity_(world),
      controller_(
          "backend", 1, [](const std::string& key) { return key; },
          [this](const base::Context& context, const std::string& key) { return reconcile(context, key); }) {
  world_.backend_objects.add_handler([this](const auto& before, const auto& after) {
    // Our own status writes come back as changes without a new generation.
    if (before && after && before->meta.generation == after->meta.generation &&
        before->meta.deleting == after->meta.deleting && before->meta.finalizers == after->meta.finalizers) {
      return;
    }
    controller_.enqueue((after ? after : before)->meta.name);
  });
  world_.classes.add_handler([this](const auto& before, const auto& after) {
    for (const auto& object : {before, after}) {
      if (object && !object->managed_by_backend.empty()) controller_.enqueue(object->managed_by_backend);
    }
    // A conflicting class that goes frees its name.
    if (!after && before->managed_by_backend.empty()) {
      for (const auto& backend : world_.backend_objects.list()) controller_.enqueue(backend->meta.name);
    }
  });
  world_.storage_nodes.add_handler([this](const auto& before, const auto& after) {
    auto backends_of = [](const auto& object) {
      const Json* found = object ? base::find(*object->json, "/status/backends") : nullptr;
      return found ? *found : Json();
    };
    // Answers to operations change the object often; only what it says of backends matters here.
    const Json was = backends_of(before), is = backends_of(after);
    if (was == is) return;
    // Room comes and goes with every volume: that can wait for the count of the volumes.
    const bool only_room = without_room(was) == without_room(is);
    for (const auto& backend : world_.backend_objects.list()) {
      only_room ? enqueue_later(backend->meta.name) : controller_.enqueue(backend->meta.name);
    }
  });
  world_.nodes.add_handler([this](const auto& before, const auto& after) {
    if (before && after && before->ready == after->ready) return;
    for (const auto& backend : world_.backend_objects.list()) enqueue_later(backend->meta.name);
  });
  world_.volumes.add_handler([this](const auto& before, const auto& after) {
    if (before && after) return;
    auto handle = engine::parse_handle((after ? after : before)->handle);
    if (!handle.ok()) return;
    auto object = world_.backend_objects.get(handle->backend);
    if (!object) return;
    // The last volume of a backend that is being deleted sets it free at once.
    if (object->meta.deleting) {
      controller_.enqueue(handle->backend);
    } else {
      enqueue_later(handle->backend);
    }
  });
  world_.attachments.add_handler([this](const auto& before, const auto& after) {
    if (before && after && before->attached == after->attached) return;
    auto volume = world_.volumes.get((after ? after : before)->volume_name);
    if (!volume) return;
    auto handle = engine::parse_handle(volume->handle);
    if (handle.ok() && world_.backend_objects.get(handle->backend)) enqueue_later(handle->backend);
  });
}

void BackendController::enqueue_later(const std::string& name) {
  controller_.enqueue_after(name, kCountLater);
}

void BackendController::start(const base::Context& context) {
  for (const auto& object : world_.backend_objects.list()) controller_.enqueue(object->meta.name);
  controller_.start(context);
}

absl::Status BackendController::settled() const {
  std::lock_guard lock(mutex_);
  for (const auto& object : world_.backend_objects.list()) {
    if (!seen_.contains(object->meta.name)) {
      return absl::UnavailableError(
          absl::StrCat("StorageBackend ", object->meta.name, " was not looked at yet"));
    }
  }
  return absl::OkStatus();
}

BackendController::Memory& BackendController::memory(const std::string& name) {
  std::lock_guard lock(mutex_);
  auto& slot = memories_[name];
  if (!slot) slot = std::make_unique<Memory>();
  return *slot;
}

const drivers::Kind* BackendController::kind_named(const std::string& name) const {
  auto found = std::find_if(world_.kinds.begin(), world_.kinds.end(),
                            [&](const drivers::Kind& kind) { return kind.info.kind == name; });
  return found == world_.kinds.end() ? nullptr : &*found;
}

std::vector<NodeView> BackendController::node_views(const std::string& backend) const {
  std::vector<NodeView> views;
  for (const std::string& node : nodes_.agent_nodes()) {
    NodeView view{.name = node};
    auto object = world_.storage_nodes.get(node);
    const Json* states = object ? base::find(*object->json, "/status/backends") : nullptr;
    if (states != nullptr && states->is_array()) {
      for (const Json& state : *states) {
        if (base::get_string(state, "/name") != backend) continue;
        view.ready = base::get_bool(state, "/ready");
        view.message = base::get_string(state, "/message");
        // Not ready and nothing to say: it has not tried yet.
        view.known = view.ready || !view.message.empty();
        if (const Json* capacity = base::find(state, "/capacity")) {
          auto parsed = drivers::capacity_from_json(*capacity);
          if (parsed.ok()) view.capacity = *parsed;
        }
      }
    }
    views.push_back(std::move(view));
  }
  return views;
}

absl::Status BackendController::prepare(const base::Context& context, const kube::BackendObject& object,
                                        const drivers::Kind& kind, Memory& memory) {
  COLLAGE_ASSIGN_OR_RETURN(engine::BackendSpec parsed,
                           engine::parse_backend_spec(*object.json, world_.kinds));
  auto spec = std::make_shared<const engine::BackendSpec>(std::move(parsed));
  const bool same_storage = memory.spec && memory.spec->kind == spec->kind &&
                            *memory.spec->block == *spec->block &&
                            memory.spec->credentials_secret == spec->credentials_secret;
  if (!memory.driver || !same_storage) {
    if (kind.info.control == drivers::ControlPlace::kAnywhere) {
      drivers::DriverConfig config{.backend = spec->name, .block = spec->block.get()};
      if (!spec->credentials_secret.empty()) {
        COLLAGE_ASSIGN_OR_RETURN(
            config.credentials,
            read_secret(context, world_.client, {world_.name_space, spec->credentials_secret}));
      }
      COLLAGE_ASSIGN_OR_RETURN(memory.driver, kind.make(config));
    } else {
      memory.driver = engine::make_node_proxy(kind, spec->name, nodes_);
    }
    memory.driver = engine::make_fenced_driver(std::move(memory.driver), world_.leads);
    memory.probe = absl::UnavailableError("not probed yet");
    memory.probed_at = {};
  }
  if (memory.system_id.empty()) memory.system_id = base::get_string(*object.json, "/status/systemID");
  if (!memory.intents)
    memory.intents = std::make_shared<engine::Intents>(intent_store_, spec->name, context.clock());
  if (!memory.intents->loaded()) {
    COLLAGE_RETURN_IF_ERROR(
        base::annotate(memory.intents->load(context), "load the intents of creates under way"));
  }
  memory.spec = spec;
  return absl::OkStatus();
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
  if (memory.probe.ok() && now - memory.probed_at < kResync) return;
  memory.probed_at = now;
  auto result =
      memory.driver->probe(context.with_timeout(kProbeTimeout),
                           {.initialize = memory.system_id.empty(), .expected_system_id = memory.system_id});
  memory.probe = result.status();
  if (result.ok() && memory.system_id.empty()) memory.system_id = result->system_id;
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
  // A changed spec may help a claim too: a limit that was raised, a namespace that was let in.
  const bool news = !memory.published || memory.ready != ready || memory.generation != object.meta.generation;
  memory.generation = object.meta.generation;
  memory.ready = ready;
  memory.published = true;
  world_.backends.set(std::move(backend));
  if (news && usable_) usable_(object.meta.name);
}

kube::Outcome BackendController::reconcile(const base::Context& context, const std::string& name) {
  auto object = world_.backend_objects.get(name);
  if (!object) {
    world_.backends.remove(name);
    std::lock_guard lock(mutex_);
    memories_.erase(name);
    seen_.erase(name);
    return kube::Done{};
  }
  Memory& mine = memory(name);
  auto spec = engine::parse_backend_spec(*object->json, world_.kinds);
  BackendFacts facts{.spec = spec.status(), .deleting = object->meta.deleting};
  const drivers::Kind* kind = nullptr;
  if (spec.ok()) {
    kind = kind_named(spec->kind);
    facts.paused = spec->paused;
    facts.needs_credentials = !spec->credentials_secret.empty();
    facts.control = kind->info.control;
    if (!object->meta.deleting) {
      absl::Status kept = keep_finalizer(context, *object, true);
      if (!kept.ok()) return kube::Retry{kept};
    }
    absl::Status prepared = prepare(context, *object, *kind, mine);
    if (absl::IsInvalidArgument(prepared) || absl::IsNotFound(prepared) ||
        absl::IsPermissionDenied(prepared)) {
      facts.credentials = prepared;
    } else if (!prepared.ok()) {
      return kube::Retry{prepared};
    }
  }
  if (object->meta.deleting) return reconcile_deleted(context, name, *object, std::move(facts));

  absl::Status trouble;  // of the API server: shown by the retry, not in a condition
  if (facts.spec.ok() && facts.credentials.ok()) {
    probe(context, *kind, mine);
    facts.probe = mine.probe;
    if (facts.needs_credentials &&
        (absl::IsUnauthenticated(mine.probe) || absl::IsPermissionDenied(mine.probe)))
      facts.credentials = mine.probe;
    if (kind->info.control != drivers::ControlPlace::kAnywhere) facts.nodes = node_views(name);
    engine::Backend present{
        .spec = *mine.spec, .uid = object->meta.uid, .system_id = mine.system_id, .driver = mine.driver};
    auto rooms = capacity_.measure(context, present, *kind, facts.nodes);
    facts.capacity_status = rooms.status();
    if (rooms.ok() && !rooms->empty()) {
      drivers::Capacity sum;
      for (const auto& room : *rooms) {
        sum.total_bytes += room.capacity.total_bytes;
        sum.available_bytes += room.capacity.available_bytes;
      }
      if (kind->reports_capacity) facts.capacity = sum;
      trouble.Update(capacity_.publish(context, present, *rooms));
    }
    absl::Status driver_object = keep_csi_driver(context, world_.client, *kind);
    facts.classes = absl::IsFailedPrecondition(driver_object)
                        ? driver_object
                        : keep_classes(context, world_, *mine.spec, *object);
    if (!facts.classes.ok() && !absl::IsAlreadyExists(facts.classes) &&
        !absl::IsFailedPrecondition(facts.classes)) {
      trouble.Update(facts.classes);
      facts.classes = absl::OkStatus();
    }
  }
  const BackendVerdict verdict = decide(facts);
  if (mine.spec && mine.driver) publish_backend(*object, mine, verdict.ready);
  trouble.Update(write_status(context, *object, verdict, facts, mine, kind));
  {
    std::lock_guard lock(mutex_);
    seen_[name] = true;
  }
  if (!trouble.ok()) return kube::Retry{trouble};
  if (!facts.spec.ok()) return kube::Terminal{facts.spec};
  return kube::RequeueAfter{facts.probe.ok() ? kResync : kProbeAgain};
}

}  // namespace collage::reconcile
