#include <algorithm>
#include <nlohmann/json.hpp>

#include "operator/kube/objects.h"
#include "operator/kube/objects_detail.h"

namespace collage::kube {

bool Meta::has_finalizer(std::string_view finalizer) const {
  return std::any_of(finalizers.begin(), finalizers.end(), [&](Interned each) { return each == finalizer; });
}

absl::StatusOr<Meta> parse_meta(const base::Json& object) {
  const base::Json* metadata = base::find(object, "/metadata");
  if (metadata == nullptr || !metadata->is_object())
    return absl::InvalidArgumentError("an object without metadata");
  Meta meta;
  meta.name = base::get_string(*metadata, "/name");
  if (meta.name.empty()) return absl::InvalidArgumentError("an object without metadata.name");
  meta.name_space = detail::interned(*metadata, "/namespace");
  meta.uid = base::get_string(*metadata, "/uid");
  if (meta.uid.empty()) return absl::InvalidArgumentError(meta.key().to_string() + " has no metadata.uid");
  meta.generation = static_cast<uint64_t>(std::max<int64_t>(0, base::get_int(*metadata, "/generation")));
  meta.resource_version = base::get_string(*metadata, "/resourceVersion");
  meta.deleting = !base::get_string(*metadata, "/deletionTimestamp").empty();
  meta.finalizers = detail::interned_list(*metadata, "/finalizers");
  return meta;
}

}  // namespace collage::kube
