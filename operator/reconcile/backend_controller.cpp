#include "operator/reconcile/backend_controller.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status.h"
#include "drivers/codec.h"
#include "operator/engine/names.h"
#include "operator/reconcile/csi_driver.h"
#include "operator/reconcile/storage_classes.h"

namespace collage::reconcile {
namespace {

using base::Json;

constexpr auto kResync = std::chrono::seconds(60);      // looks again; writes nothing when nothing changed
constexpr auto kProbeAgain = std::chrono::seconds(10);  // after a failure
constexpr auto kCountLater = std::chrono::seconds(10);  // counts and room in the status may lag by this much

// What a node says of backends, without how much room it measured.
Json without_room(Json backends) {
  if (!backends.is_array()) return backends;
  for (Json& backend : backends) {
    if (backend.is_object() && backend.contains("capacity")) backend["capacity"] = true;
  }
  return backends;
}

std::string confirmed_clusters(const kube::BackendObject& object) {
  return base::get_string(*object.json, "/metadata/annotations/collage.storage~1cluster-is-gone");
}

}  // namespace

BackendController::BackendController(World& world, engine::NodeOperations& nodes,
                                     engine::IntentStore& intents, SurveyOptions survey)
    : world_(world),
      nodes_(nodes),
      intent_store_(intents),
      capacity_(world),
      survey_(world, survey, [this](const std::string& backend) { controller_.enqueue(backend); }),
      controller_(
          "backend", 1, [](const std::string& key) { return key; },
          [this](const base::Context& context, const std::string& key) { return reconcile(context, key); }),
      secrets_(world.client, world.name_space, [this](const std::string& secret) {
        for (const std::string& backend : secrets_.users(secret)) controller_.enqueue(backend);
      }) {
  add_handlers();
}

void BackendController::add_handlers() {
  world_.backend_objects.add_handler([this](const auto& before, const auto& after) {
    // Our own status writes come back as changes without a new generation.
    if (before && after && before->meta.generation == after->meta.generation &&
        before->meta.deleting == after->meta.deleting && before->meta.finalizers == after->meta.finalizers &&
        confirmed_clusters(*before) == confirmed_clusters(*after)) {
      return;
    }
    controller_.enqueue((after ? after : before)->meta.name);
  });
  world_.classes.add_handler([this](const auto& before, const auto& after) {
    for (const auto& object : {before, after}) {
      if (object && !object->managed_by_backend.empty()) controller_.enqueue(object->managed_by_backend);
    }
    // A conflicting class that goes frees its name.
    if (!after && before->managed_by_backend.empty()) enqueue_all();
  });
  world_.csi_drivers.add_handler([this](const auto& before, const auto& after) {
    if (world_.kind_of_driver((after ? after : before)->meta.name) != nullptr) enqueue_all();
  });
  world_.capacities.add_handler([this](const auto& before, const auto& after) {
    for (const auto& object : {before, after}) {
      if (object && !object->backend.empty() && world_.backend_objects.get(object->backend))
        controller_.enqueue(object->backend);
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
    if (before && after && before->phase == after->phase) return;
    auto handle = drivers::parse_handle((after ? after : before)->handle);
    if (!handle.ok()) return;
    auto object = world_.backend_objects.get(handle->backend);
    if (!object) return;
    // The last volume of a backend that is being deleted sets it free at once, and one that was released may
    // be removed now.
    if (object->meta.deleting) {
      controller_.enqueue(handle->backend);
    } else if (!before || !after) {
      enqueue_later(handle->backend);
    }
  });
  world_.attachments.add_handler([this](const auto& before, const auto& after) {
    if (before && after && before->attached == after->attached) return;
    auto volume = world_.volumes.get((after ? after : before)->volume_name);
    if (!volume) return;
    auto handle = drivers::parse_handle(volume->handle);
    if (handle.ok() && world_.backend_objects.get(handle->backend)) enqueue_later(handle->backend);
  });
}

void BackendController::enqueue_all() {
  for (const auto& backend : world_.backend_objects.list()) controller_.enqueue(backend->meta.name);
}

void BackendController::enqueue_later(const std::string& name) {
  controller_.enqueue_after(name, kCountLater);
}

void BackendController::start(const base::Context& context) {
  root_ = context;
  enqueue_all();
  controller_.start(context);
  survey_.start(context);
}

void BackendController::stop() {
  secrets_.stop();
  survey_.stop();
  controller_.stop();
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

// A backend that was deleted and made anew under its name shares nothing with the old one.
BackendController::Memory& BackendController::memory(const kube::BackendObject& object) {
  std::lock_guard lock(mutex_);
  auto& slot = memories_[object.meta.name];
  if (!slot || slot->uid != object.meta.uid) {
    slot = std::make_unique<Memory>();
    slot->uid = object.meta.uid;
  }
  return *slot;
}

void BackendController::seen(const std::string& name) {
  std::lock_guard lock(mutex_);
  seen_[name] = true;
}

const drivers::Kind* BackendController::kind_named(const std::string& name) const {
  auto found = std::find_if(world_.kinds.begin(), world_.kinds.end(),
                            [&](const drivers::Kind& kind) { return kind.info.kind == name; });
  return found == world_.kinds.end() ? nullptr : &*found;
}

std::vector<NodeView> BackendController::node_views(const std::string& backend) const {
  std::vector<NodeView> views;
  for (const std::string& node : nodes_.agent_nodes()) {
    const auto machine = world_.nodes.get(node);
    NodeView view{.name = node};
    view.hostname = machine ? machine->hostname : node;
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

absl::Status BackendController::keep_objects(const base::Context& context, const kube::BackendObject& object,
                                             const drivers::Kind& kind, Memory& memory, BackendFacts& facts,
                                             std::chrono::nanoseconds& again) {
  engine::Backend present{
      .spec = *memory.spec, .uid = object.meta.uid, .system_id = memory.system_id, .driver = memory.driver};
  Settling settling(world_.corrections, context.clock().now(),
                    memory.kept && memory.kept_generation == object.meta.generation);
  absl::Status trouble;  // of the API server: shown by the retry, not in a condition
  auto rooms = capacity_.measure(context, present, kind, facts.nodes);
  facts.capacity_status = rooms.status();
  if (rooms.ok() && !rooms->empty()) {
    drivers::Capacity sum;
    for (const auto& room : *rooms) {
      sum.total_bytes += room.capacity.total_bytes;
      sum.available_bytes += room.capacity.available_bytes;
    }
    if (kind.reports_capacity) facts.capacity = sum;
    trouble.Update(capacity_.publish(context, present, *rooms, settling));
  }
  absl::Status driver_object = keep_csi_driver(context, world_, kind, settling);
  facts.classes = absl::IsFailedPrecondition(driver_object)
                      ? driver_object
                      : keep_classes(context, world_, *memory.spec, object, settling);
  if (!absl::IsFailedPrecondition(driver_object)) trouble.Update(driver_object);
  if (!facts.classes.ok() && !absl::IsAlreadyExists(facts.classes) &&
      !absl::IsFailedPrecondition(facts.classes)) {
    trouble.Update(facts.classes);
    facts.classes = absl::OkStatus();
  }
  facts.contested = settling.contested();
  again = settling.again();
  memory.kept = trouble.ok();
  memory.kept_generation = object.meta.generation;
  return trouble;
}

kube::Outcome BackendController::reconcile(const base::Context& context, const std::string& name) {
  auto object = world_.backend_objects.get(name);
  if (!object) {
    world_.backends.remove(name);
    secrets_.use(root_, name, "");
    survey_.forget(name);
    std::lock_guard lock(mutex_);
    memories_.erase(name);
    seen_.erase(name);
    return kube::Done{};
  }
  Memory& mine = memory(*object);
  auto spec = engine::parse_backend_spec(*object->json, world_.kinds);
  BackendFacts facts{.spec = spec.status(), .deleting = object->meta.deleting};
  const drivers::Kind* kind = nullptr;
  if (spec.ok()) {
    kind = kind_named(spec->kind);
    facts.paused = spec->paused;
    facts.needs_credentials = !kind->info.credentials.empty();
    facts.control = kind->info.control;
    if (!object->meta.deleting) {
      absl::Status kept = keep_finalizer(context, *object, true);
      if (!kept.ok()) return kube::Retry{kept};
    }
    absl::Status prepared = prepare(context, *object, *kind, *std::move(spec), mine);
    if (!prepared.ok()) return kube::Retry{prepared};
  }
  if (object->meta.deleting) return reconcile_deleted(context, *object, std::move(facts));

  absl::Status trouble;
  std::chrono::nanoseconds again{0};
  if (facts.spec.ok() && mine.driver) {
    probe(context, *kind, mine);
    facts.probe = mine.probe;
    if (kind->info.control != drivers::ControlPlace::kAnywhere) facts.nodes = node_views(name);
    const bool reached =
        std::any_of(facts.nodes.begin(), facts.nodes.end(), [](const auto& node) { return node.ready; });
    if (reached) {
      if (absl::Status registered = register_cluster(context, *kind, mine); !registered.ok())
        base::log::warning(context, "the clusters of a storage are not known", {{"error", registered}});
    }
    facts.cluster = judge_cluster_of(*object, mine);
    trouble.Update(keep_objects(context, *object, *kind, mine, facts, again));
  }
  if (facts.spec.ok()) {
    facts.credentials = mine.credentials_status;
    facts.credentials_in_use = mine.driver != nullptr && mine.credentials_good;
    if (facts.needs_credentials && facts.credentials.ok() && !mine.credentials_good)
      facts.credentials =
          absl::UnavailableError("the storage system could not be asked yet whether they are good");
  }
  const BackendVerdict verdict = decide(facts);
  if (mine.spec && mine.driver) publish_backend(*object, mine, verdict.ready);
  trouble.Update(write_status(context, *object, verdict, facts, mine, kind));
  seen(name);
  if (!trouble.ok()) return kube::Retry{trouble};
  if (!facts.spec.ok()) return kube::Terminal{facts.spec};
  const bool good = facts.probe.ok() && facts.credentials.ok();
  std::chrono::nanoseconds next = good ? kResync : kProbeAgain;
  if (again.count() > 0) next = std::min(next, again);
  return kube::RequeueAfter{std::chrono::duration_cast<std::chrono::milliseconds>(next) +
                            std::chrono::milliseconds(1)};
}

}  // namespace collage::reconcile
