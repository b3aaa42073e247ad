#include "operator/reconcile/deletion_decision.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace collage::reconcile {
namespace {

using engine::DeletionPolicy;

std::string remedy(DeletionPolicy policy) {
  switch (policy) {
    case DeletionPolicy::kBlock:
      return "Delete their claims, or set spec.deletionPolicy to Orphan to leave the volumes where they are.";
    case DeletionPolicy::kDelete:
      return "Volumes that a claim is bound to are never removed: delete the claims, or set "
             "spec.deletionPolicy to Orphan to leave the volumes where they are.";
    case DeletionPolicy::kOrphan:
      return "It goes on when they have ended; deleting the claims ends them too.";
  }
  return "";
}

}  // namespace

std::string some_of(const std::vector<std::string>& names, size_t most) {
  if (names.size() <= most) return absl::StrJoin(names, ", ");
  return absl::StrCat(absl::StrJoin(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(most), ", "),
                      " and ", names.size() - most, " more");
}

DeletionVerdict decide_deletion(const DeletionFacts& facts) {
  DeletionVerdict verdict;
  // A create under way may still make a volume: without its intent nobody would know of it. That is waited
  // for whatever the policy is.
  const bool volumes_hold = facts.policy != DeletionPolicy::kOrphan && !facts.volumes.empty();
  if (!volumes_hold && facts.creates.empty() && facts.unreadable.empty()) {
    verdict.done = true;
    return verdict;
  }
  size_t bound = 0;
  std::vector<std::string> names;
  std::set<std::string> nodes;
  size_t attached = 0;
  for (const VolumeLeft& volume : facts.volumes) {
    names.push_back(volume.name);
    bound += volume.bound;
    attached += !volume.attached_to.empty();
    nodes.insert(volume.attached_to.begin(), volume.attached_to.end());
    if (volume.retained && facts.policy == DeletionPolicy::kDelete && facts.identity.ok())
      verdict.to_remove.push_back(volume.name);
  }
  std::sort(names.begin(), names.end());
  verdict.message = "Deletion waits: ";
  if (volumes_hold) {
    absl::StrAppend(&verdict.message, names.size(), " PersistentVolumes are on this backend (",
                    some_of(names), "), ", bound, " of them bound, ", attached, " attached");
    if (attached > 0) absl::StrAppend(&verdict.message, " to ", some_of({nodes.begin(), nodes.end()}));
    absl::StrAppend(&verdict.message, facts.creates.empty() && facts.unreadable.empty() ? "" : "; ");
  }
  if (!facts.creates.empty()) {
    absl::StrAppend(&verdict.message, facts.creates.size(), " creates are under way (",
                    some_of(facts.creates), ")", facts.unreadable.empty() ? "" : "; ");
  }
  if (!facts.unreadable.empty()) {
    absl::StrAppend(&verdict.message, facts.unreadable.size(), " intents cannot be read (",
                    some_of(facts.unreadable),
                    "): remove the volumes \"pvc-<key>\" that the storage may "
                    "have, then take these keys out of ConfigMap ",
                    facts.intents);
  }
  absl::StrAppend(&verdict.message, ". ", remedy(facts.policy));
  if (facts.policy == DeletionPolicy::kDelete && !facts.identity.ok()) {
    absl::StrAppend(&verdict.message, " Nothing is removed by spec.deletionPolicy Delete at present: ",
                    facts.identity.message());
  }
  return verdict;
}

}  // namespace collage::reconcile
