#include "operator/reconcile/live_claims.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "base/status.h"

namespace collage::reconcile {
namespace {

constexpr std::chrono::milliseconds kSpacing{20};  // of the lists
constexpr std::chrono::milliseconds kPatience{100};

// Where the API server is with claims: the resourceVersion of a list of them. Of no claim, in the operator's
// own namespace: the version is that of all.
absl::StatusOr<std::shared_ptr<const uint64_t>> version_of_claims(const base::Context& context,
                                                                  World& world) {
  kube::ListOptions none;
  none.name_space = world.name_space;
  none.field_selector = "metadata.name=none";
  COLLAGE_ASSIGN_OR_RETURN(const std::string version,
                           world.client.list(context, kube::kPersistentVolumeClaims, none,
                                             [](base::Json&) { return absl::OkStatus(); }));
  return std::make_shared<const uint64_t>(kube::version_number(version));
}

}  // namespace

LiveClaims::LiveClaims(World& world)
    : world_(world), versions_(kSpacing, 1, [this](const base::Context& context, const std::string&) {
        return version_of_claims(context, world_);
      }) {}

absl::StatusOr<LiveClaim> LiveClaims::get(const base::Context& context, const kube::Key& key,
                                          bool annotations) {
  const bool crowd = ++asking_ >= kCrowd;
  const absl::Cleanup done = [this] { --asking_; };
  if (crowd && !annotations && cache_has_caught_up(context))
    return LiveClaim{world_.claims.get(key.to_string()), {}};
  return read(context, key, annotations);
}

bool LiveClaims::cache_has_caught_up(const base::Context& context) {
  const auto version = versions_.get(context, "");
  return version.ok() && *version != nullptr && **version != 0 &&
         world_.claims.wait_for(**version, kPatience, context.stop());
}

absl::StatusOr<LiveClaim> LiveClaims::read(const base::Context& context, const kube::Key& key,
                                           bool annotations) {
  const absl::StatusOr<base::Json> object = world_.client.get(context, kube::kPersistentVolumeClaims, key);
  if (absl::IsNotFound(object.status())) return LiveClaim{};
  if (!object.ok()) return base::annotate(object.status(), "read the claim");
  COLLAGE_ASSIGN_OR_RETURN(kube::Claim claim, kube::parse<kube::Claim>(*object));
  LiveClaim live{std::make_shared<const kube::Claim>(std::move(claim)), {}};
  const base::Json* const found = base::find(*object, "/metadata/annotations");
  if (annotations && found != nullptr && found->is_object()) {
    for (const auto& [name, value] : found->items()) {
      if (value.is_string()) live.annotations.emplace(name, value.get<std::string>());
    }
  }
  return live;
}

}  // namespace collage::reconcile
