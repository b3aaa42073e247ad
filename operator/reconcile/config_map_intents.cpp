#include "operator/reconcile/config_map_intents.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "base/status.h"
#include "operator/engine/names.h"

namespace collage::reconcile {
namespace {

constexpr char kTokenAnnotation[] = "collage.storage/write";

kube::Key key_of(const std::string& name_space, const std::string& backend) {
  return {name_space, intents_config_map(backend)};
}

base::Json object_of(const kube::Key& key, const std::string& backend,
                     const std::map<std::string, std::string>& entries, const std::string& token,
                     const std::string& version) {
  base::Json object = {
      {"apiVersion", "v1"},
      {"kind", "ConfigMap"},
      {"metadata",
       {{"name", key.name},
        {"namespace", key.name_space},
        {"labels", {{engine::kBackendLabel, backend}}},
        {"annotations", {{kTokenAnnotation, token}}}}},
      {"data", entries},
  };
  if (!version.empty()) object["metadata"]["resourceVersion"] = version;
  return object;
}

bool fate_unknown(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable ||
         status.code() == absl::StatusCode::kDeadlineExceeded ||
         status.code() == absl::StatusCode::kCancelled;
}

}  // namespace

std::string intents_config_map(const std::string& backend) {
  return absl::StrCat("collage-intents-", backend);
}

ConfigMapIntents::ConfigMapIntents(kube::Client& client, std::string name_space)
    : client_(client), name_space_(std::move(name_space)), identity_(base::random_hex(6)) {}

absl::StatusOr<engine::IntentStore::Snapshot> ConfigMapIntents::load(const base::Context& context,
                                                                     const std::string& backend) {
  COLLAGE_ASSIGN_OR_RETURN(const Stored stored, read(context, backend));
  return Snapshot{stored.entries, stored.version};
}

absl::StatusOr<std::string> ConfigMapIntents::save(const base::Context& context, const std::string& backend,
                                                   const std::map<std::string, std::string>& entries,
                                                   const std::string& version) {
  const kube::Key key = key_of(name_space_, backend);
  const std::string token = next_token();
  absl::StatusOr<std::string> written =
      write(context, backend, object_of(key, backend, entries, token, version), version);
  if (!written.ok() && absl::IsAborted(written.status())) {
    // Somebody wrote since `version`. When that was this process itself, by a write whose answer was lost,
    // go on from there.
    COLLAGE_ASSIGN_OR_RETURN(const Stored stored, read(context, backend));
    if (!is_doubtful(backend, stored.token)) return written.status();
    written =
        write(context, backend, object_of(key, backend, entries, token, stored.version), stored.version);
  }
  if (!written.ok() && fate_unknown(written.status())) {
    {
      std::lock_guard lock(mutex_);
      doubtful_[backend].insert(token);
    }
    const absl::StatusOr<Stored> stored = read(context, backend);
    if (!stored.ok() || stored->token != token) return written.status();
    written = stored->version;
  }
  if (written.ok()) {
    std::lock_guard lock(mutex_);
    doubtful_.erase(backend);
  }
  return written;
}

absl::StatusOr<ConfigMapIntents::Stored> ConfigMapIntents::read(const base::Context& context,
                                                                const std::string& backend) {
  const kube::Key key = key_of(name_space_, backend);
  absl::StatusOr<base::Json> object = client_.get(context, kube::kConfigMaps, key);
  if (absl::IsNotFound(object.status())) return Stored{};
  if (!object.ok()) return base::annotate(object.status(), absl::StrCat("read ConfigMap ", key.to_string()));
  Stored stored;
  stored.version = base::get_string(*object, "/metadata/resourceVersion");
  stored.token = base::get_string(*object, "/metadata/annotations/collage.storage~1write");
  if (const base::Json* data = base::find(*object, "/data"); data != nullptr && data->is_object()) {
    for (const auto& [name, value] : data->items()) {
      if (value.is_string()) stored.entries[name] = value.get<std::string>();
    }
  }
  return stored;
}

absl::StatusOr<std::string> ConfigMapIntents::write(const base::Context& context, const std::string& backend,
                                                    const base::Json& object, const std::string& version) {
  const kube::Key key = key_of(name_space_, backend);
  absl::StatusOr<base::Json> answer = version.empty()
                                          ? client_.create(context, kube::kConfigMaps, name_space_, object)
                                          : client_.replace(context, kube::kConfigMaps, key, object, "");
  if (answer.ok()) return base::get_string(*answer, "/metadata/resourceVersion");
  const absl::Status status =
      base::annotate(answer.status(), absl::StrCat("write ConfigMap ", key.to_string()));
  // Made or deleted by somebody else since it was loaded.
  if (absl::IsAlreadyExists(status) || absl::IsNotFound(status)) return absl::AbortedError(status.message());
  return status;
}

std::string ConfigMapIntents::next_token() {
  std::lock_guard lock(mutex_);
  return absl::StrCat(identity_, "-", ++sequence_);
}

bool ConfigMapIntents::is_doubtful(const std::string& backend, const std::string& token) const {
  std::lock_guard lock(mutex_);
  const auto found = doubtful_.find(backend);
  return found != doubtful_.end() && found->second.contains(token);
}

}  // namespace collage::reconcile
