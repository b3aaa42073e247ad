#include "unit/testing/fake_store.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/random.h"
#include "base/strings.h"
#include "operator/kube/resource.h"

namespace collage::testing {

using base::Json;

namespace {

constexpr size_t kHistory = 100000;  // changes of a kind that a watch may resume over

std::string table_name(const FakeStore::Kind& kind) {
  return kind.group + "/" + kind.plural;
}

std::string now_text() {
  return base::rfc3339(base::Clock::real().wall());
}

bool is_deleting(const Json& object) {
  return !base::get_string(object, "/metadata/deletionTimestamp").empty();
}

bool has_finalizers(const Json& object) {
  const Json* finalizers = base::find(object, "/metadata/finalizers");
  return finalizers != nullptr && finalizers->is_array() && !finalizers->empty();
}

// All but metadata and status: what a generation counts.
Json spec_of(Json object) {
  object.erase("metadata");
  object.erase("status");
  return object;
}

void copy_field(const Json& from, Json& to, const char* field) {
  if (from.contains(field)) {
    to[field] = from[field];
  } else {
    to.erase(field);
  }
}

// Nothing, null and an empty one are alike.
bool differs(const Json& live, const Json& next, const std::string& field) {
  const Json* before = base::find(live, field);
  const Json* after = base::find(next, field);
  const bool was = before != nullptr && !before->empty(), is = after != nullptr && !after->empty();
  return was != is || (was && *before != *after);
}

bool adds_finalizer(const Json& live, const Json& next) {
  const Json* after = base::find(next, "/metadata/finalizers");
  if (after == nullptr || !after->is_array()) return false;
  const Json* before = base::find(live, "/metadata/finalizers");
  for (const Json& each : *after) {
    bool known = false;
    if (before != nullptr && before->is_array()) {
      for (const Json& one : *before) known = known || one == each;
    }
    if (!known) return true;
  }
  return false;
}

}  // namespace

// Holds the lock, collects the changes, and runs the hooks once the lock is gone.
class FakeStore::Transaction {
 public:
  explicit Transaction(FakeStore& store) : store_(store), lock_(store.mutex_) {}
  ~Transaction() {
    if (pending_.empty()) return;
    store_.changed_.notify_all();
    const std::vector<Hook> hooks = store_.hooks_;
    lock_.unlock();
    for (const Pending& each : pending_) {
      for (const Hook& hook : hooks) hook(each.kind, each.change);
    }
  }

  // `after` nullptr: deleted. Answers the object as stored.
  Object commit(Table& table, const std::string& key, Object before, std::optional<Json> after) {
    const uint64_t revision = ++store_.revision_;
    const bool deleted = !after.has_value();
    Json object = deleted ? *before : std::move(*after);
    object["metadata"]["resourceVersion"] = std::to_string(revision);
    const auto stored = std::make_shared<const Json>(std::move(object));
    if (deleted) {
      table.objects.erase(key);
      table.owners.erase(key);
    } else {
      table.objects[key] = stored;
    }
    Change change{revision, deleted ? "DELETED" : before ? "MODIFIED" : "ADDED", stored, before};
    table.history.push_back(change);
    if (table.history.size() > kHistory) {
      store_.compacted_ = table.history.front().revision;
      table.history.pop_front();
    }
    pending_.push_back({table.kind, std::move(change)});
    return stored;
  }

 private:
  FakeStore& store_;
  std::unique_lock<std::mutex> lock_;
  std::vector<Pending> pending_;
};

FakeStore::FakeStore() {
  namespace k = collage::kube;
  struct Known {
    const k::Resource& resource;
    bool status = false;
    bool versioned = false;
    const char* first_phase = "";
    std::vector<std::string> immutable;
  };
  const Known known[] = {{k::kPersistentVolumeClaims, true, false, "Pending"},
                         {k::kPersistentVolumes, true, false, "Pending", {"/spec/csi", "/spec/volumeMode"}},
                         {k::kNodes, true},
                         {k::kNamespaces, true},
                         {k::kSecrets},
                         {k::kConfigMaps},
                         {k::kEvents},
                         {k::kPods, true},
                         {k::kDaemonSets, true},
                         {k::kLeases, false, true},
                         {k::kStorageClasses,
                          false,
                          false,
                          "",
                          {"/provisioner", "/parameters", "/reclaimPolicy", "/volumeBindingMode"}},
                         {k::kVolumeAttachments, true, false, "", {"/spec"}},
                         {k::kCsiDrivers, false, false, "", {"/spec/attachRequired"}},
                         {k::kCsiNodes},
                         {k::kCsiStorageCapacities, false, false, "", {"/nodeTopology", "/storageClassName"}},
                         {k::kStorageBackends, true, true},
                         {k::kStorageNodes, true, true}};
  for (const Known& each : known) {
    const k::Resource& r = each.resource;
    add_kind({std::string(r.group), std::string(r.version), std::string(r.plural), std::string(r.kind),
              r.namespaced, each.status, each.versioned, each.first_phase, each.immutable});
  }
}

void FakeStore::add_kind(Kind kind) {
  std::lock_guard lock(mutex_);
  tables_[table_name(kind)].kind = std::move(kind);
}

void FakeStore::set_list_key(const std::string& field, const std::string& key) {
  std::lock_guard lock(mutex_);
  list_keys_[field] = key;
}

void FakeStore::add_hook(Hook hook) {
  std::lock_guard lock(mutex_);
  hooks_.push_back(std::move(hook));
}

const FakeStore::Kind* FakeStore::find_kind(const std::string& group, const std::string& version,
                                            const std::string& plural) const {
  std::lock_guard lock(mutex_);
  const auto found = tables_.find(group + "/" + plural);
  return found == tables_.end() || found->second.kind.version != version ? nullptr : &found->second.kind;
}

const FakeStore::Kind& FakeStore::kind_of(const Json& object) const {
  const std::string api_version = base::get_string(object, "/apiVersion"),
                    kind = base::get_string(object, "/kind");
  std::lock_guard lock(mutex_);
  for (const auto& [name, table] : tables_) {
    if (table.kind.kind == kind && table.kind.api_version() == api_version) return table.kind;
  }
  fprintf(stderr, "the fake API server knows no %s %s\n", api_version.c_str(), kind.c_str());
  std::abort();
}

std::string FakeStore::key_of(const std::string& name_space, const std::string& name) {
  return name_space.empty() ? name : name_space + "/" + name;
}

FakeStore::Table& FakeStore::table(const Kind& kind) {
  return tables_.at(table_name(kind));
}
const FakeStore::Table& FakeStore::table(const Kind& kind) const {
  return tables_.at(table_name(kind));
}

FakeStore::Answer FakeStore::error(int status, const std::string& reason, const std::string& message) {
  return {status,
          {{"kind", "Status"},
           {"apiVersion", "v1"},
           {"metadata", Json::object()},
           {"status", "Failure"},
           {"message", message},
           {"reason", reason},
           {"code", status}}};
}

FakeStore::Object FakeStore::get(const Kind& kind, const std::string& key) const {
  std::lock_guard lock(mutex_);
  const auto& objects = table(kind).objects;
  const auto found = objects.find(key);
  return found == objects.end() ? nullptr : found->second;
}

std::vector<FakeStore::Object> FakeStore::list(const Kind& kind, const std::string& name_space,
                                               uint64_t* revision) const {
  std::lock_guard lock(mutex_);
  std::vector<Object> result;
  for (const auto& [key, object] : table(kind).objects) {
    if (name_space.empty() || key.starts_with(name_space + "/")) result.push_back(object);
  }
  if (revision != nullptr) *revision = revision_;
  return result;
}

FakeStore::Answer FakeStore::create(const Kind& kind, const std::string& name_space, Json object) {
  Transaction transaction(*this);
  return create_locked(table(kind), name_space, std::move(object), transaction);
}

FakeStore::Answer FakeStore::create_locked(Table& table, const std::string& name_space, Json object,
                                           Transaction& transaction) {
  const Kind& kind = table.kind;
  if (!object.is_object() || !object.contains("metadata") || !object["metadata"].is_object()) {
    return error(400, "BadRequest", "the object has no metadata");
  }
  Json& metadata = object["metadata"];
  std::string name = base::get_string(metadata, "/name");
  if (const std::string prefix = base::get_string(metadata, "/generateName");
      name.empty() && !prefix.empty()) {
    name = prefix + base::random_hex(3).substr(0, 5);
  }
  if (name.empty())
    return error(422, "Invalid",
                 kind.kind + " is invalid: metadata.name: Required value: name or generateName is required");
  if (kind.namespaced && name_space.empty())
    return error(400, "BadRequest", "the server needs a namespace in the path");
  if (!base::get_string(metadata, "/resourceVersion").empty()) {
    // 500 is what the real one answers.
    return error(500, "InternalError", "resourceVersion should not be set on objects to be created");
  }
  const std::string key = key_of(kind.namespaced ? name_space : "", name);
  if (table.objects.contains(key)) {
    return error(409, "AlreadyExists", base::cat(kind.plural, " \"", name, "\" already exists"));
  }
  object["apiVersion"] = kind.api_version();
  object["kind"] = kind.kind;
  metadata["name"] = name;
  if (kind.namespaced) metadata["namespace"] = name_space;
  metadata["uid"] = base::random_uuid();
  metadata["creationTimestamp"] = now_text();
  metadata["generation"] = 1;
  metadata.erase("deletionTimestamp");
  if (kind.status) object.erase("status");
  if (!kind.first_phase.empty()) object["status"]["phase"] = kind.first_phase;
  return {201, *transaction.commit(table, key, nullptr, std::move(object))};
}

FakeStore::Answer FakeStore::update(const Kind& kind, const std::string& key, const std::string& subresource,
                                    Json object) {
  Transaction transaction(*this);
  Table& in = table(kind);
  const auto found = in.objects.find(key);
  if (found == in.objects.end())
    return error(404, "NotFound", base::cat(kind.plural, " \"", key, "\" not found"));
  if (kind.versioned && base::get_string(object, "/metadata/resourceVersion").empty()) {
    return error(422, "Invalid",
                 "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update");
  }
  return finish_update(in, key, subresource, found->second, std::move(object), transaction);
}

// Everything that holds for any way of changing an object.
FakeStore::Answer FakeStore::finish_update(Table& table, const std::string& key,
                                           const std::string& subresource, Object live, Json next,
                                           Transaction& transaction) {
  const Kind& kind = table.kind;
  if (!next.is_object() || !next.contains("metadata") || !next["metadata"].is_object()) {
    return error(400, "BadRequest", "the object has no metadata");
  }
  const std::string version = base::get_string(next, "/metadata/resourceVersion");
  if (!version.empty() && version != base::get_string(*live, "/metadata/resourceVersion")) {
    return error(409, "Conflict",
                 base::cat("Operation cannot be fulfilled on ", kind.plural, " \"", key,
                           "\": the object has been modified; please apply your changes to the latest "
                           "version and try again"));
  }
  const std::string uid = base::get_string(next, "/metadata/uid");
  if (!uid.empty() && uid != base::get_string(*live, "/metadata/uid")) {
    return error(409, "Conflict", "Precondition failed: UID in precondition is not that of the object");
  }
  if (base::get_string(next, "/metadata/name") != base::get_string(*live, "/metadata/name")) {
    return error(400, "BadRequest", "the name of the object does not match the name on the URL");
  }
  if (!subresource.empty()) {
    Json whole = *live;
    copy_field(next, whole, subresource.c_str());
    next = std::move(whole);
  } else if (kind.status) {
    copy_field(*live, next, "status");
  }
  for (const char* field : {"uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
                            "generation", "namespace", "resourceVersion"}) {
    copy_field((*live)["metadata"], next["metadata"], field);
  }
  next["metadata"].erase("managedFields");
  next["apiVersion"] = kind.api_version();
  next["kind"] = kind.kind;
  if (is_deleting(*live) && adds_finalizer(*live, next)) {
    return error(
        422, "Invalid",
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted");
  }
  for (const std::string& field : kind.immutable) {
    if (differs(*live, next, field))
      return error(422, "Invalid",
                   base::cat(kind.kind, " \"", key, "\" is invalid: ", field.substr(1),
                             ": Invalid value: field is immutable"));
  }
  if (next == *live) return {200, next};  // nothing changed: no new version
  if (spec_of(next) != spec_of(*live))
    next["metadata"]["generation"] = base::get_int(*live, "/metadata/generation") + 1;
  if (is_deleting(next) && !has_finalizers(next)) {
    const auto last = std::make_shared<const Json>(std::move(next));
    return {200, *transaction.commit(table, key, last, std::nullopt)};
  }
  return {200, *transaction.commit(table, key, live, std::move(next))};
}

FakeStore::Answer FakeStore::patch(const Kind& kind, const std::string& key, const std::string& subresource,
                                   const Patch& patch) {
  Transaction transaction(*this);
  Table& in = table(kind);
  if (patch.content_type == "application/apply-patch+yaml")
    return apply_locked(in, key, subresource, patch, transaction);
  const auto found = in.objects.find(key);
  if (found == in.objects.end())
    return error(404, "NotFound", base::cat(kind.plural, " \"", key, "\" not found"));
  Json next = *found->second;
  if (patch.content_type == "application/merge-patch+json") {
    if (!patch.body.is_object()) return error(400, "BadRequest", "the patch is no object");
    merge_patch(next, patch.body);
  } else if (patch.content_type == "application/json-patch+json") {
    if (const absl::Status status = json_patch(next, patch.body); !status.ok()) {
      return error(
          422, "Invalid",
          base::cat("the server rejected our request due to an error in our request: ", status.message()));
    }
  } else {
    return error(415, "UnsupportedMediaType", "the body of the request was in an unknown format");
  }
  return finish_update(in, key, subresource, found->second, std::move(next), transaction);
}

FakeStore::Answer FakeStore::apply_locked(Table& table, const std::string& key,
                                          const std::string& subresource, const Patch& patch,
                                          Transaction& transaction) {
  const Kind& kind = table.kind;
  if (patch.manager.empty())
    return error(422, "Invalid", "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value");
  if (base::get_string(patch.body, "/apiVersion") != kind.api_version() ||
      base::get_string(patch.body, "/kind") != kind.kind) {
    return error(400, "BadRequest", "apiVersion and kind must be set and match the path");
  }
  const auto found = table.objects.find(key);
  FieldOwners owners = table.owners[key];
  if (found == table.objects.end()) {
    const std::string name_space = key.find('/') == std::string::npos ? "" : key.substr(0, key.find('/'));
    if (!subresource.empty() || !base::get_string(patch.body, "/metadata/uid").empty()) {
      return error(404, "NotFound", base::cat(kind.plural, " \"", key, "\" not found"));
    }
    Json object = Json::object();
    (void)apply_patch(object, patch.body, patch.manager, true, list_keys_, owners);
    Answer answer = create_locked(table, name_space, std::move(object), transaction);
    if (answer.status == 201) table.owners[key] = std::move(owners);
    return answer;
  }
  // Each subresource has owners of its own.
  const std::string manager = subresource.empty() ? patch.manager : patch.manager + "/" + subresource;
  Json next = *found->second;
  if (const absl::Status status = apply_patch(next, patch.body, manager, patch.force, list_keys_, owners);
      !status.ok()) {
    return error(409, "Conflict", std::string(status.message()));
  }
  Answer answer = finish_update(table, key, subresource, found->second, std::move(next), transaction);
  if (answer.status == 200 && table.objects.contains(key)) table.owners[key] = std::move(owners);
  return answer;
}

FakeStore::Answer FakeStore::remove(const Kind& kind, const std::string& key, const Json& options) {
  Transaction transaction(*this);
  Table& in = table(kind);
  const auto found = in.objects.find(key);
  if (found == in.objects.end())
    return error(404, "NotFound", base::cat(kind.plural, " \"", key, "\" not found"));
  const Object live = found->second;
  for (const char* field : {"uid", "resourceVersion"}) {
    const std::string wanted = base::get_string(options, base::cat("/preconditions/", field));
    if (!wanted.empty() && wanted != base::get_string(*live, base::cat("/metadata/", field))) {
      return error(409, "Conflict",
                   base::cat("Precondition failed: ", field, " in precondition is not that of the object"));
    }
  }
  if (!has_finalizers(*live)) {
    transaction.commit(in, key, live, std::nullopt);
    return {200,
            {{"kind", "Status"}, {"apiVersion", "v1"}, {"metadata", Json::object()}, {"status", "Success"}}};
  }
  if (is_deleting(*live)) return {200, *live};
  Json next = *live;
  next["metadata"]["deletionTimestamp"] = now_text();
  next["metadata"]["deletionGracePeriodSeconds"] = 0;
  return {200, *transaction.commit(in, key, live, std::move(next))};
}

Json FakeStore::put(Json object) {
  const Kind& kind = kind_of(object);
  Transaction transaction(*this);
  Table& in = table(kind);
  Json& metadata = object["metadata"];
  const std::string key = key_of(kind.namespaced ? base::get_string(metadata, "/namespace") : "",
                                 base::get_string(metadata, "/name"));
  const auto found = in.objects.find(key);
  const Object live = found == in.objects.end() ? nullptr : found->second;
  if (!metadata.contains("uid"))
    metadata["uid"] = live ? base::get_string(*live, "/metadata/uid") : base::random_uuid();
  if (!metadata.contains("creationTimestamp")) metadata["creationTimestamp"] = now_text();
  if (!metadata.contains("generation")) metadata["generation"] = 1;
  return *transaction.commit(in, key, live, std::move(object));
}

void FakeStore::erase(const Kind& kind, const std::string& key) {
  Transaction transaction(*this);
  Table& in = table(kind);
  if (const auto found = in.objects.find(key); found != in.objects.end()) {
    const Object live = found->second;
    transaction.commit(in, key, live, std::nullopt);
  }
}

uint64_t FakeStore::revision() const {
  std::lock_guard lock(mutex_);
  return revision_;
}

std::optional<std::vector<FakeStore::Change>> FakeStore::changes_since(const Kind& kind,
                                                                       uint64_t revision) const {
  std::lock_guard lock(mutex_);
  if (revision < compacted_) return std::nullopt;
  const auto& history = table(kind).history;
  const auto first =
      std::upper_bound(history.begin(), history.end(), revision,
                       [](uint64_t value, const Change& change) { return value < change.revision; });
  return std::vector<Change>(first, history.end());
}

void FakeStore::compact() {
  std::lock_guard lock(mutex_);
  compacted_ = ++revision_;
  for (auto& [name, each] : tables_) each.history.clear();
}

void FakeStore::wait_beyond(uint64_t revision, std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  const uint64_t wakes = wakes_;
  changed_.wait_for(lock, timeout, [&] { return revision_ > revision || wakes_ != wakes; });
}

void FakeStore::wake() {
  std::lock_guard lock(mutex_);
  ++wakes_;
  changed_.notify_all();
}

}  // namespace collage::testing
