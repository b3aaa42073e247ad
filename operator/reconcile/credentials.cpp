#include "operator/reconcile/credentials.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/json.h"
#include "base/log.h"
#include "base/retry.h"
#include "base/status.h"

namespace collage::reconcile {
namespace {

using base::Json;

constexpr auto kRetryFirst = std::chrono::milliseconds(200);
constexpr auto kRetryLongest = std::chrono::seconds(60);

std::string where(const kube::Key& secret) {
  return absl::StrCat("spec.credentialsSecret: Secret ", secret.to_string());
}

}  // namespace

absl::StatusOr<base::Secrets> read_credentials(const base::Context& context, kube::Client& client,
                                               const kube::Key& secret,
                                               const std::vector<std::string>& keys) {
  const auto object = client.get(context, kube::kSecrets, secret);
  if (absl::IsNotFound(object.status())) {
    return absl::NotFoundError(
        absl::StrCat(where(secret), " does not exist: create it with ", absl::StrJoin(keys, ", ")));
  }
  if (absl::IsPermissionDenied(object.status())) {
    return absl::PermissionDeniedError(absl::StrCat(
        where(secret), " may not be read by the operator: allow it (chart value rbac.secretNames): ",
        object.status().message()));
  }
  if (!object.ok()) return base::annotate(object.status(), absl::StrCat(where(secret), " cannot be read"));
  base::Secrets secrets;
  if (const Json* data = base::find(*object, "/data"); data != nullptr && data->is_object()) {
    for (const auto& [name, value] : data->items()) {
      std::string decoded;
      if (!value.is_string() || !absl::Base64Unescape(value.get_ref<const std::string&>(), &decoded)) {
        return absl::InvalidArgumentError(absl::StrCat(
            where(secret), " key ", name, " is not base64: write it again (kubectl create secret)"));
      }
      secrets.emplace(name, base::Secret(decoded));
    }
  }
  for (const std::string& key : keys) {
    const auto found = secrets.find(key);
    if (found != secrets.end() && !found->second.empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(where(secret), found == secrets.end() ? " has no key " : " has nothing in key ", key,
                     ": add it; it must hold ", absl::StrJoin(keys, ", ")));
  }
  return secrets;
}

bool is_about_the_secret(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsPermissionDenied(status) || absl::IsInvalidArgument(status);
}

SecretWatches::SecretWatches(kube::Client& client, std::string name_space,
                             std::function<void(const std::string&)> changed)
    : client_(client), name_space_(std::move(name_space)), changed_(std::move(changed)) {}

SecretWatches::~SecretWatches() {
  stop();
}

void SecretWatches::use(const base::Context& context, const std::string& user, const std::string& secret) {
  std::jthread ended;  // joined after the lock is given back: it may be about to take it
  std::lock_guard lock(mutex_);
  if (stopped_) return;
  const auto before = used_.find(user);
  const std::string old = before == used_.end() ? "" : before->second;
  if (old == secret) return;
  if (secret.empty()) {
    used_.erase(user);
  } else {
    used_[user] = secret;
  }
  const bool still_used =
      std::any_of(used_.begin(), used_.end(), [&](const auto& entry) { return entry.second == old; });
  if (!old.empty() && !still_used) {
    const auto watch = watches_.find(old);
    watch->second.request_stop();
    ended = std::move(watch->second);
    watches_.erase(watch);
  }
  if (secret.empty() || watches_.contains(secret)) return;
  // Not the caller's deadline nor fields: the watch outlives the reconcile that asked for it.
  watches_[secret] = std::jthread([this, secret, root = context.stop()](std::stop_token stop) {
    std::stop_source either;
    const std::stop_callback on_stop(stop, [&either] { either.request_stop(); });
    const std::stop_callback on_root(root, [&either] { either.request_stop(); });
    run(base::Context(either.get_token()).with_field("secret", secret), secret);
  });
}

std::vector<std::string> SecretWatches::users(const std::string& secret) const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> result;
  for (const auto& [user, used] : used_) {
    if (used == secret) result.push_back(user);
  }
  return result;
}

void SecretWatches::stop() {
  std::map<std::string, std::jthread> watches;
  std::lock_guard lock(mutex_);
  stopped_ = true;
  watches.swap(watches_);  // ended and joined after the lock is given back
  for (auto& [secret, watch] : watches) watch.request_stop();
}

// The objects that pass hold the values: nothing of them is looked at here but the version.
void SecretWatches::run(const base::Context& context, const std::string& secret) {
  base::Backoff backoff(kRetryFirst, kRetryLongest);
  const kube::ListOptions options{.name_space = name_space_,
                                  .field_selector = absl::StrCat("metadata.name=", secret)};
  std::string version;
  while (!context.stopped()) {
    changed_(secret);
    // Without a resourceVersion the stream begins with the Secret as it is.
    const absl::Status ended =
        client_.watch(context, kube::kSecrets, options, "", [&](const kube::WatchEvent& event) {
          backoff.reset();
          const std::string now = base::get_string(*event.object, "/metadata/resourceVersion");
          if (event.type != kube::WatchEvent::Type::kBookmark && now != version) {
            version = now;
            changed_(secret);
          }
          return absl::OkStatus();
        });
    if (context.stopped()) return;
    if (absl::IsPermissionDenied(ended) && backoff.failures() == 0) {
      base::log::info(context, "the Secret may not be watched: it is read again every minute",
                      {{"error", ended}});
    }
    (void)context.sleep_for(backoff.next());
  }
}

}  // namespace collage::reconcile
