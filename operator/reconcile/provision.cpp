#include "operator/reconcile/provision.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/log.h"
#include "base/status.h"
#include "operator/engine/names.h"

namespace collage::reconcile {
namespace {

// Threads of the small controllers beside the lanes.
constexpr int kReplayThreads = 2;
// After room came free: many volumes that go at once make the claims that wait for room look once.
constexpr std::chrono::milliseconds kRoomSettles{500};

}  // namespace

std::string Provisioner::Id::to_key() const {
  return absl::StrCat(name_space, "/", name, "/", uid);
}

Provisioner::Id Provisioner::Id::parse(const std::string& key) {
  const std::vector<std::string> parts = absl::StrSplit(key, absl::MaxSplits('/', 2));
  if (parts.size() != 3) return {};
  return {parts[0], parts[1], parts[2]};
}

Provisioner::Id Provisioner::Id::of(const kube::Claim& claim) {
  return {claim.meta.name_space.str(), claim.meta.name, claim.meta.uid};
}

Provisioner::Provisioner(World& world, ProvisionOptions options)
    : world_(world),
      options_(options),
      live_claims_(world),
      lanes_(
          "provision", options.threads_per_backend, [this](const std::string& key) { return lane_of(key); },
          [this](const base::Context& context, const std::string& key) { return reconcile(context, key); }),
      announcer_("provision-announce", 1,
                 [this](const base::Context&, const std::string& key) { return announce(key); }),
      replayer_("provision-replay", kReplayThreads,
                [this](const base::Context& context, const std::string& backend) {
                  return replay(context, backend);
                }) {
  add_handlers();
}

Provisioner::~Provisioner() {
  stop();
}

void Provisioner::start(const base::Context& context) {
  announcer_.start(context);
  lanes_.start(context);
  replayer_.start(context);
  started_ = true;
  for (const auto& claim : world_.claims.list()) {
    if (is_pending(*claim)) lanes_.enqueue(Id::of(*claim).to_key());
  }
}

bool Provisioner::is_pending(const kube::Claim& claim) const {
  return claim.volume_name.empty() && world_.kind_of_driver(claim.provisioner) != nullptr;
}

void Provisioner::stop() {
  replayer_.stop();
  lanes_.stop();
  announcer_.stop();
}

void Provisioner::add_handlers() {
  world_.claims.add_handler([this](const auto& before, const auto& after) {
    if (!started_) return;
    // The old object also when its name was taken by a new one: what was begun for it must come to an end.
    if (before != nullptr && (after == nullptr || after->meta.uid != before->meta.uid)) {
      waits_no_more(Id::of(*before).to_key());
      if (find_work(before->meta.uid) != nullptr) lanes_.enqueue(Id::of(*before).to_key());
    }
    if (after == nullptr) return;
    if (is_pending(*after) || find_work(after->meta.uid) != nullptr) lanes_.enqueue(Id::of(*after).to_key());
  });
  // A class that came late, or was made anew with other parameters.
  world_.classes.add_handler([this](const auto&, const auto& after) {
    if (!started_ || after == nullptr || world_.kind_of_driver(after->provisioner) == nullptr) return;
    for (const auto& claim : world_.claims.list()) {
      if (claim->volume_name.empty() && claim->storage_class == after->meta.name)
        lanes_.enqueue(Id::of(*claim).to_key());
    }
  });
  // A node registered a driver: claims may wait for just that.
  world_.csi_nodes.add_handler([this](const auto& before, const auto& after) {
    if (!started_ || after == nullptr) return;
    for (const kube::CsiNode::Driver& driver : after->drivers) {
      const bool registered = before == nullptr || before->driver(driver.name.str()) == nullptr;
      if (registered && world_.kind_of_driver(driver.name) != nullptr) look_again("");
    }
  });
  // A namespace was given other labels: a backend may let its claims in now.
  world_.namespaces.add_handler([this](const auto& before, const auto& after) {
    if (!started_ || after == nullptr || (before != nullptr && before->labels == after->labels)) return;
    const std::string prefix = after->meta.name + "/";
    std::vector<std::string> keys;
    {
      std::lock_guard lock(mutex_);
      for (auto at = waiting_.lower_bound(prefix); at != waiting_.end() && at->first.starts_with(prefix);
           ++at)
        keys.push_back(at->first);
    }
    for (const std::string& key : keys) lanes_.enqueue(key);
  });
  // A PersistentVolume that stood in the way of a claim is gone, or took the last room.
  world_.volumes.add_handler([this](const auto& before, const auto& after) {
    if (!started_ || after != nullptr || world_.kind_of_driver(before->driver) == nullptr) return;
    if (const auto handle = drivers::parse_handle(before->handle); handle.ok())
      room_came_free(handle->backend);
    if (before->claim_name.empty()) return;
    const auto claim =
        world_.claims.get(kube::Key{before->claim_namespace.str(), before->claim_name}.to_string());
    if (claim != nullptr && claim->volume_name.empty()) lanes_.enqueue(Id::of(*claim).to_key());
  });
}

void Provisioner::backend_changed(const std::string& backend) {
  replayer_.enqueue(backend);
  look_again(backend);
}

void Provisioner::look_again(const std::string& backend) {
  std::vector<std::string> keys;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [key, waits_for] : waiting_) {
      if (backend.empty() || waits_for == backend) keys.push_back(key);
    }
  }
  for (const std::string& key : keys) lanes_.enqueue(key);
}

std::string Provisioner::lane_of(const std::string& key) const {
  const Id id = Id::parse(key);
  if (const WorkPtr work = find_work(id.uid)) return work->backend;
  const auto claim = world_.claims.get(kube::Key{id.name_space, id.name}.to_string());
  if (claim == nullptr || claim->storage_class.empty()) return "";
  const auto storage_class = world_.classes.get(claim->storage_class.str());
  if (storage_class == nullptr) return "";
  const auto backend = storage_class->parameters.find(engine::kBackendParameter);
  return backend == storage_class->parameters.end() ? "" : backend->second;
}

kube::Outcome Provisioner::reconcile(const base::Context& context, const std::string& key) {
  const Id id = Id::parse(key);
  auto claim = world_.claims.get(kube::Key{id.name_space, id.name}.to_string());
  if (claim != nullptr && claim->meta.uid != id.uid) claim = nullptr;
  const WorkPtr work = find_work(id.uid);
  const auto volume = world_.volumes.get(engine::volume_name(id.uid));
  ClassPtr storage_class;
  if (claim != nullptr && !claim->storage_class.empty())
    storage_class = world_.classes.get(claim->storage_class.str());

  ProvisionFacts facts;
  facts.claim = claim.get();
  facts.kind = claim == nullptr ? nullptr : world_.kind_of_driver(claim->provisioner);
  facts.storage_class = storage_class.get();
  facts.volume_exists = volume != nullptr && volume->claim_uid == id.uid;
  facts.begun = work != nullptr;
  const ProvisionDecision decision = decide_provision(facts);

  switch (decision.step) {
    case ProvisionStep::kIgnore:
      waits_no_more(key);
      return kube::Done{};
    case ProvisionStep::kDone:
      // Made by us with the answer lost, or by an earlier process. Another volume than the one in hand: see
      // publish().
      if (work != nullptr && !stands_for(*volume, *work)) {
        work->unwanted = true;
        return abandon(context, work);
      }
      if (work != nullptr) end(*work);
      waits_no_more(key);
      return kube::Done{};
    case ProvisionStep::kAbandon:
      return abandon(context, work);
    case ProvisionStep::kPopulator:
      event(id, kube::EventType::kRoutine, "Provisioning",
            absl::StrCat("spec.dataSource: a ", claim->data_source->kind,
                         " is filled by an external populator, which is waited for"));
      return kube::Done{};
    case ProvisionStep::kWait:
      return kube::Retry{decision.why};
    case ProvisionStep::kRefuse:
      return refuse(*claim, decision.why);
    case ProvisionStep::kProvision:
      if (work == nullptr) return begin(context, *claim, *facts.kind, storage_class);
      return go_on(context, work, *claim, *facts.kind, storage_class);
  }
  return kube::Done{};
}

// A create that has begun goes on where it is: the driver's call with the same request, or the
// PersistentVolume.
kube::Outcome Provisioner::go_on(const base::Context& context, const WorkPtr& work, const kube::Claim& claim,
                                 const drivers::Kind& kind, const ClassPtr& storage_class) {
  if (work->unwanted) return abandon(context, work);
  wait_for(work->id.to_key(), work->backend);
  if (world_.being_set_up(work->backend)) return kube::RequeueAfter{options_.slow_retry};
  const BackendPtr backend = world_.backends.get(work->backend);
  if (absl::Status status =
          judge_backend(work->backend, backend.get(), kind, claim.storage_class.str(), Begun::kYes);
      !status.ok()) {
    return refuse(claim, status);
  }
  if (!work->request.has_value()) {
    work->storage_class = storage_class;
    if (absl::Status status = restore_request(*work, kind); !status.ok()) {
      base::log::warning(context,
                         "the request of a create that had begun cannot be made again, it starts over",
                         {{"error", status}});
      return settle_unknown(context, work, *backend);
    }
  }
  if (work->volume.has_value()) return publish(context, work, claim, kind, *backend);
  return create(context, work, claim, kind, *backend);
}

kube::Outcome Provisioner::announce(const std::string& key) {
  const WorkPtr work = find_work(Id::parse(key).uid);
  if (work == nullptr || !work->creating || work->announced.exchange(true)) return kube::Done{};
  event(work->id, kube::EventType::kRoutine, "Provisioning",
        absl::StrCat("StorageBackend \"", work->backend, "\" is making the volume ",
                     engine::volume_name(work->id.uid)));
  return kube::Done{};
}

Provisioner::WorkPtr Provisioner::find_work(const std::string& uid) const {
  std::lock_guard lock(mutex_);
  const auto found = works_.find(uid);
  return found == works_.end() ? nullptr : found->second;
}

void Provisioner::end(const Work& work) {
  const BackendPtr backend = world_.backends.get(work.backend);
  const std::shared_ptr<engine::Intents> intents = backend == nullptr ? work.intents : backend->intents;
  intents->end(work.id.uid);
  const bool gave_back = world_.usage.release(work.backend, engine::volume_name(work.id.uid));
  const std::string uid = work.id.uid, used = work.backend;
  {
    std::lock_guard lock(mutex_);
    waiting_.erase(work.id.to_key());
    works_.erase(uid);
  }
  if (gave_back) room_came_free(used);
  next_in_line(used, *intents);
}

void Provisioner::wait_for(const std::string& key, const std::string& backend) {
  std::lock_guard lock(mutex_);
  waiting_[key] = backend;
}

void Provisioner::waits_for_room(const std::string& key, const std::string& backend) {
  std::lock_guard lock(mutex_);
  full_[backend].insert(key);
}

void Provisioner::room_came_free(const std::string& backend) {
  std::set<std::string> keys;
  {
    std::lock_guard lock(mutex_);
    const auto found = full_.find(backend);
    if (found == full_.end()) return;
    keys = std::move(found->second);
    full_.erase(found);
  }
  for (const std::string& key : keys) lanes_.enqueue_after(key, kRoomSettles);
}

kube::Outcome Provisioner::wait_in_line(const kube::Claim& claim, const engine::Backend& backend) {
  const Id id = Id::of(claim);
  {
    std::lock_guard lock(mutex_);
    line_[backend.spec.name].insert(id.to_key());
  }
  event(id, kube::EventType::kRoutine, "Provisioning",
        absl::StrCat("StorageBackend \"", backend.spec.name, "\" has ", engine::Intents::kMaxEntries,
                     " creates under way, as many as it may have: this one begins when one of them ends"));
  next_in_line(backend.spec.name, *backend.intents);  // one may have ended just now
  return kube::RequeueAfter{options_.slow_retry};
}

void Provisioner::next_in_line(const std::string& backend, const engine::Intents& intents) {
  std::vector<std::string> keys;
  {
    std::lock_guard lock(mutex_);
    const auto found = line_.find(backend);
    if (found == line_.end()) return;
    std::set<std::string>& line = found->second;
    for (size_t room = intents.room(); room > 0 && !line.empty(); --room)
      keys.push_back(std::move(line.extract(line.begin()).value()));
    if (line.empty()) line_.erase(found);
  }
  for (const std::string& key : keys) lanes_.enqueue(key);
}

void Provisioner::waits_no_more(const std::string& key) {
  std::lock_guard lock(mutex_);
  waiting_.erase(key);
}

void Provisioner::event(const Id& id, kube::EventType type, const std::string& reason,
                        const std::string& message) {
  world_.events.event({kube::Claim::kResource.api_version(), std::string(kube::Claim::kResource.kind),
                       id.name_space, id.name, id.uid, ""},
                      type, reason, message);
}

kube::Outcome Provisioner::refuse(const kube::Claim& claim, const absl::Status& why) {
  event(Id::of(claim), kube::EventType::kWarning, "ProvisioningFailed", std::string(why.message()));
  return kube::RequeueAfter{options_.slow_retry};
}

kube::Outcome Provisioner::retry(const kube::Claim& claim, const absl::Status& why) {
  event(Id::of(claim), kube::EventType::kWarning, "ProvisioningFailed", std::string(why.message()));
  return kube::Retry{why};
}

}  // namespace collage::reconcile
