#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "operator/engine/names.h"
#include "operator/reconcile/config_map_intents.h"
#include "operator/reconcile/provision.h"

// What an earlier process began and did not end. Runs once a backend, when the caches are whole and before
// any claim of the backend is begun anew.
namespace collage::reconcile {
namespace {

int64_t size_of(const drivers::DriverInfo& info, const engine::IntentRecord& record) {
  const int64_t asked = record.claim.requested_bytes;
  return drivers::volume_size(info, {.required_bytes = asked}).value_or(asked);
}

}  // namespace

kube::Outcome Provisioner::replay(const base::Context& context, const std::string& backend_name) {
  const BackendPtr backend = world_.backends.get(backend_name);
  if (backend == nullptr || replayed(*backend)) return kube::Done{};
  if (!backend->intents->loaded()) {
    if (absl::Status status = backend->intents->load(context); !status.ok()) {
      return kube::Retry{base::annotate(status, "load the intents of backend " + backend_name)};
    }
  }
  for (const auto& [uid, text] : backend->intents->open()) {
    if (find_work(uid) != nullptr) continue;
    absl::StatusOr<engine::IntentRecord> record = engine::decode_intent(uid, text);
    if (!record.ok()) {
      // Written by a later version, perhaps: kept. The claim, if it is still there, begins anew under the
      // same name.
      base::log::error(context,
                       "an intent cannot be read and is kept: see whether the storage has the volume, then "
                       "take the key out of the ConfigMap and restart the operator",
                       {{"backend", backend_name},
                        {"config_map", intents_config_map(backend_name)},
                        {"key", uid},
                        {"volume", engine::volume_name(uid)},
                        {"error", record.status()}});
      continue;
    }
    const auto volume = world_.volumes.get(engine::volume_name(uid));
    auto work = std::make_shared<Work>();
    work->id = {record->claim.name_space, record->claim.name, uid};
    work->backend = backend_name;
    if (volume != nullptr && stands_for(*volume, *work)) {
      backend->intents->end(uid);
      continue;
    }
    work->intents = backend->intents;
    work->record = *std::move(record);
    work->begun = context.clock().now();
    // Counts, but is not refused: it may exist.
    (void)world_.usage.reserve(backend_name, engine::Limits{}, engine::volume_name(uid),
                               size_of(backend->driver->info(), work->record));
    {
      std::lock_guard lock(mutex_);
      works_[uid] = work;
    }
    base::log::info(context, "a create of an earlier process is followed up",
                    {{"backend", backend_name}, {"claim_uid", uid}});
    lanes_.enqueue(work->id.to_key());
  }
  {
    std::lock_guard lock(mutex_);
    replayed_[backend_name] = backend->intents;
  }
  look_again(backend_name);
  return kube::Done{};
}

bool Provisioner::replayed(const engine::Backend& backend) const {
  std::lock_guard lock(mutex_);
  const auto found = replayed_.find(backend.spec.name);
  // Not loaded (any more): somebody else wrote them meanwhile, they are read again.
  return found != replayed_.end() && found->second.lock() == backend.intents && backend.intents->loaded();
}

}  // namespace collage::reconcile
