#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/context.h"
#include "base/json.h"
#include "operator/kube/client.h"
#include "operator/kube/objects.h"

namespace collage::reconcile {

// The finalizers of an object, changed without losing one that somebody else adds or removes at the same
// time.

// A JSON patch that takes `names` out of `present`, each removal guarded by a test of its place and of the
// object's uid. Empty array when none of them is there.
base::Json remove_finalizers_patch(const kube::Meta& meta, const std::vector<std::string>& names);

// The "finalizers" list of a merge patch that adds `name`; goes with a resourceVersion.
base::Json finalizers_with(const kube::Meta& meta, const std::vector<std::string>& names);
// The list of an update that takes `name` out; goes with a resourceVersion.
base::Json finalizers_without(const kube::Meta& meta, std::string_view name);

// Takes `names` out: one write when `meta` is current; when the list has moved under us, reads the object and
// tries again. Answers the object as it is now, null when it is gone (or is another one of that name: uid).
absl::StatusOr<base::Json> remove_finalizers(const base::Context& context, kube::Client& client,
                                             const kube::Resource& resource, kube::Meta meta,
                                             const std::vector<std::string>& names);

}  // namespace collage::reconcile
