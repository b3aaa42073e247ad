#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/json.h"

namespace collage::testing {

// Who owns which fields of one object, by server-side apply
// (kubernetes.io/docs/reference/using-api/server-side-apply). A field is the path of its keys; the element of
// a list that is merged by a key is one step "<key>=<value>" with a mark before it.
using FieldPath = std::vector<std::string>;
struct FieldOwners {
  std::map<std::string, std::set<FieldPath>> managers;
};

// Lists that are merged by a key instead of being replaced: by the name of their field. Finalizers are merged
// as a set.
using ListKeys = std::map<std::string, std::string>;

// Applies `patch` of `manager` to `object`: fields of the patch are set and owned, fields that this manager
// owned and left out now are removed unless another owns them too. ABORTED names the other managers when a
// field of theirs would change and `force` is not given; then nothing changed.
absl::Status apply_patch(base::Json& object, const base::Json& patch, const std::string& manager, bool force,
                         const ListKeys& list_keys, FieldOwners& owners);

// RFC 7386.
void merge_patch(base::Json& object, const base::Json& patch);
// RFC 6902. INVALID_ARGUMENT when a test fails or a path is not there; then nothing changed.
absl::Status json_patch(base::Json& object, const base::Json& patch);

}  // namespace collage::testing
