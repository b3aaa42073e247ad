#include "unit/testing/fake_apply.h"

#include <nlohmann/json.hpp>

#include "base/strings.h"

namespace collage::testing {
namespace {

using base::Json;

constexpr char kElement = '\x01';  // before "<key>=<value>"

std::string element_step(const Json& element, const std::string& key) {
  const Json value = key.empty() ? element : element.value(key, Json());
  return kElement + key + "=" + value.dump();
}

// "" for a set of scalars, the key's name for a list of objects, nullopt for a list that is replaced as a
// whole.
std::optional<std::string> key_of_list(const std::string& field, const Json& list, const ListKeys& keys) {
  if (!list.is_array()) return std::nullopt;
  if (field == "finalizers") return "";
  const auto found = keys.find(field);
  if (found == keys.end()) return std::nullopt;
  for (const Json& element : list) {
    if (!element.is_object() || !element.contains(found->second)) return std::nullopt;
  }
  return found->second;
}

Json* find_element(Json& list, const std::string& step) {
  const size_t equals = step.find('=');
  const std::string key = step.substr(1, equals - 1);
  for (Json& element : list) {
    if (element_step(element, key) == step) return &element;
  }
  return nullptr;
}

Json* resolve(Json& object, const FieldPath& path, size_t length) {
  Json* at = &object;
  for (size_t i = 0; i < length; ++i) {
    if (path[i].front() == kElement) {
      at = at->is_array() ? find_element(*at, path[i]) : nullptr;
    } else {
      at = at->is_object() && at->contains(path[i]) ? &(*at)[path[i]] : nullptr;
    }
    if (at == nullptr) return nullptr;
  }
  return at;
}

void remove_path(Json& object, const FieldPath& path) {
  Json* parent = resolve(object, path, path.size() - 1);
  if (parent == nullptr) return;
  if (path.back().front() != kElement) {
    if (parent->is_object()) parent->erase(path.back());
    return;
  }
  if (!parent->is_array()) return;
  for (size_t i = 0; i < parent->size(); ++i) {
    if (find_element(*parent, path.back()) == &(*parent)[i]) {
      parent->erase(i);
      return;
    }
  }
}

bool is_identity(const FieldPath& path) {
  if (path.size() == 1) return path[0] == "apiVersion" || path[0] == "kind";
  return path.size() == 2 && path[0] == "metadata" &&
         (path[1] == "name" || path[1] == "namespace" || path[1] == "uid" || path[1] == "resourceVersion");
}

// The fields that a patch sets: leaves, and the elements of merged lists themselves.
class Flattener {
 public:
  explicit Flattener(const ListKeys& keys) : keys_(keys) {}
  std::set<FieldPath> operator()(const Json& patch) {
    walk(patch);
    return std::move(fields_);
  }

 private:
  void walk(const Json& value) {
    if (value.is_object() && !(value.empty() && !path_.empty())) {
      for (const auto& [key, child] : value.items()) {
        path_.push_back(key);
        walk(child);
        path_.pop_back();
      }
      return;
    }
    if (const auto key = path_.empty() ? std::nullopt : key_of_list(path_.back(), value, keys_)) {
      for (const Json& element : value) {
        path_.push_back(element_step(element, *key));
        fields_.insert(path_);
        if (!key->empty()) walk(element);
        path_.pop_back();
      }
      return;
    }
    if (!is_identity(path_)) fields_.insert(path_);
  }

  const ListKeys& keys_;
  FieldPath path_;
  std::set<FieldPath> fields_;
};

void merge_apply(Json& target, const Json& patch, const std::string& field, const ListKeys& keys) {
  if (patch.is_object()) {
    if (!target.is_object()) target = Json::object();
    for (const auto& [key, value] : patch.items()) merge_apply(target[key], value, key, keys);
    return;
  }
  const auto key = key_of_list(field, patch, keys);
  if (!key || !target.is_array()) {
    target = patch;
    return;
  }
  for (const Json& element : patch) {
    Json* present = find_element(target, element_step(element, *key));
    if (present == nullptr) {
      target.push_back(element);
    } else {
      merge_apply(*present, element, "", keys);
    }
  }
}

}  // namespace

absl::Status apply_patch(Json& object, const Json& patch, const std::string& manager, bool force,
                         const ListKeys& list_keys, FieldOwners& owners) {
  const std::set<FieldPath> fields = Flattener(list_keys)(patch);
  Json merged = object;
  merge_apply(merged, patch, "", list_keys);

  for (auto& [other, theirs] : owners.managers) {
    if (other == manager) continue;
    for (const FieldPath& path : fields) {
      if (!theirs.contains(path)) continue;
      const Json* before = resolve(object, path, path.size());
      const Json* after = resolve(merged, path, path.size());
      const bool changes = before == nullptr || after == nullptr || *before != *after;
      if (!changes || path.back().front() == kElement) continue;
      if (!force)
        return absl::AbortedError(base::cat("Apply failed with 1 conflict: conflict with \"", other, "\""));
    }
  }
  for (auto& [other, theirs] : owners.managers) {
    if (other == manager) continue;
    for (const FieldPath& path : fields) {
      const Json* before = resolve(object, path, path.size());
      const Json* after = resolve(merged, path, path.size());
      if (before == nullptr || after == nullptr || *before != *after) theirs.erase(path);
    }
  }
  for (const FieldPath& path : owners.managers[manager]) {
    if (fields.contains(path)) continue;
    bool shared = false;
    for (const auto& [other, theirs] : owners.managers)
      shared = shared || (other != manager && theirs.contains(path));
    if (!shared) remove_path(merged, path);
  }
  owners.managers[manager] = fields;
  object = std::move(merged);
  return absl::OkStatus();
}

void merge_patch(Json& object, const Json& patch) {
  object.merge_patch(patch);
}

absl::Status json_patch(Json& object, const Json& patch) {
  try {
    object = object.patch(patch);
    return absl::OkStatus();
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

}  // namespace collage::testing
