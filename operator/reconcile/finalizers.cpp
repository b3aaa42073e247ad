#include "operator/reconcile/finalizers.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/strings.h"

namespace collage::reconcile {
namespace {

constexpr int kTries = 4;

// What the API server answers when a test of the patch fails, or the object was changed meanwhile.
bool moved(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsAborted(status);
}

}  // namespace

base::Json remove_finalizers_patch(const kube::Meta& meta, const std::vector<std::string>& names) {
  base::Json patch = base::Json::array();
  base::Json removals = base::Json::array();
  // From the end, so that the places before stay what they are.
  for (size_t i = meta.finalizers.size(); i-- > 0;) {
    const std::string& name = meta.finalizers[i].str();
    if (std::find(names.begin(), names.end(), name) == names.end()) continue;
    const std::string path = absl::StrCat("/metadata/finalizers/", i);
    patch.push_back({{"op", "test"}, {"path", path}, {"value", name}});
    removals.push_back({{"op", "remove"}, {"path", path}});
  }
  if (removals.empty()) return patch;
  patch.push_back({{"op", "test"}, {"path", "/metadata/uid"}, {"value", meta.uid}});
  for (base::Json& removal : removals) patch.push_back(std::move(removal));
  return patch;
}

base::Json finalizers_with(const kube::Meta& meta, const std::vector<std::string>& names) {
  base::Json list = base::Json::array();
  for (const kube::Interned& finalizer : meta.finalizers) list.push_back(finalizer.str());
  for (const std::string& name : names) {
    if (!meta.has_finalizer(name)) list.push_back(name);
  }
  return list;
}

base::Json finalizers_without(const kube::Meta& meta, std::string_view name) {
  base::Json list = base::Json::array();
  for (const kube::Interned& finalizer : meta.finalizers) {
    if (finalizer.str() != name) list.push_back(finalizer.str());
  }
  return list;
}

absl::StatusOr<base::Json> remove_finalizers(const base::Context& context, kube::Client& client,
                                             const kube::Resource& resource, kube::Meta meta,
                                             const std::vector<std::string>& names) {
  const kube::Key key = meta.key();
  const std::string uid = meta.uid;
  absl::Status last;
  for (int i = 0; i < kTries; ++i) {
    if (const base::Json patch = remove_finalizers_patch(meta, names); !patch.empty()) {
      absl::StatusOr<base::Json> answer =
          client.patch(context, resource, key, kube::PatchType::kJson, patch, {});
      if (answer.ok()) return answer;
      if (absl::IsNotFound(answer.status())) return base::Json();
      last = answer.status();
      if (!moved(last)) break;
    }
    absl::StatusOr<base::Json> live = client.get(context, resource, key);
    if (absl::IsNotFound(live.status())) return base::Json();
    if (!live.ok()) return live.status();
    COLLAGE_ASSIGN_OR_RETURN(meta, kube::parse_meta(*live));
    if (meta.uid != uid) return base::Json();
    if (remove_finalizers_patch(meta, names).empty()) return live;
  }
  return base::annotate(last, base::cat("remove finalizers of ", resource.kind, " ", key.to_string()));
}

}  // namespace collage::reconcile
