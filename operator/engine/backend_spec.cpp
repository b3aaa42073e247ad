#include "operator/engine/backend_spec.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "operator/engine/class_parameters.h"
#include "operator/engine/names.h"
#include "operator/engine/spec_reader.h"

// The limits of length and number here are the CRD's own (crds/storagebackends.yaml): what one refuses, the
// other must.
namespace collage::engine {
namespace {

using base::Json;

constexpr absl::string_view kApiVersion = "collage.storage/v1beta1";
constexpr size_t kMaxClasses = 32;
constexpr size_t kMaxParameters = 64;
constexpr size_t kMaxMountOptions = 32;
constexpr size_t kMaxLabels = 32;
constexpr size_t kMaxLabelValues = 64;

std::string kind_names(const std::vector<drivers::Kind>& kinds) {
  return absl::StrJoin(kinds, ", ",
                       [](std::string* out, const drivers::Kind& kind) { out->append(kind.info.kind); });
}

const drivers::Kind* read_block(const Json& spec, const std::vector<drivers::Kind>& kinds, SpecReader& reader,
                                BackendSpec& result) {
  std::vector<const drivers::Kind*> found;
  for (const drivers::Kind& kind : kinds) {
    if (field_of(spec, kind.info.kind) != nullptr) found.push_back(&kind);
  }
  if (found.size() != 1) {
    const std::string names =
        absl::StrJoin(found, ", ", [](std::string* out, const auto* kind) { out->append(kind->info.kind); });
    reader.problem("spec", absl::StrCat("exactly one driver block is needed, one of ", kind_names(kinds),
                                        "; found ", found.empty() ? "none" : names));
    return nullptr;
  }
  result.kind = found[0]->info.kind;
  result.block = std::make_shared<const Json>(*field_of(spec, result.kind));
  return found[0];
}

// What the driver itself can tell of a class's parameters; the API server cannot.
void check_parameters(const ClassSpec& spec, absl::string_view path, const std::string& backend,
                      const drivers::Kind& kind, SpecReader& reader) {
  std::map<std::string, std::string> parameters = spec.parameters;
  parameters[kBackendParameter] = backend.empty() ? "unnamed" : backend;
  const absl::StatusOr<ClassParameters> parsed = parse_class_parameters(parameters);
  if (!parsed.ok()) return reader.problem(path, parsed.status().message());
  for (const auto& [key, value] : parsed->driver) {
    const auto& known = kind.info.parameters;
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    reader.problem(absl::StrCat(path, ".", key),
                   absl::StrCat(kind.info.kind, " does not know this parameter: correct or remove it; ",
                                known.empty() ? "it has none of its own"
                                              : absl::StrCat("it knows ", absl::StrJoin(known, ", "))));
  }
  const auto& fs_types = kind.info.fs_types;
  if (!parsed->fs_type.empty() &&
      std::find(fs_types.begin(), fs_types.end(), parsed->fs_type) == fs_types.end()) {
    reader.problem(
        path, absl::StrCat("file system type \"", parsed->fs_type, "\" cannot be made by ", kind.info.kind,
                           fs_types.empty() ? ": leave it out"
                                            : absl::StrCat("; use one of ", absl::StrJoin(fs_types, ", "))));
  }
}

ClassSpec read_class(const Json& json, const std::string& path, SpecReader& reader) {
  static const std::vector<std::string> kFields = {
      "name",       "default",     "reclaimPolicy", "volumeBindingMode", "allowVolumeExpansion",
      "parameters", "mountOptions"};
  ClassSpec result;
  if (!reader.is_object(json, path, kFields)) return result;
  if (field_of(json, "name") == nullptr)
    reader.problem(absl::StrCat(path, ".name"), "is required: the name of the StorageClass");
  reader.read_name(json, path, "name", result.name);
  reader.read(json, path, "default", result.is_default);
  reader.read_one_of(json, path, "reclaimPolicy", {"Delete", "Retain"}, result.reclaim_policy);
  reader.read_one_of(json, path, "volumeBindingMode", {"WaitForFirstConsumer", "Immediate"},
                     result.binding_mode);
  reader.read(json, path, "allowVolumeExpansion", result.allow_expansion);
  reader.read_string_map(json, path, "parameters", kMaxParameters, result.parameters);
  reader.read_strings(json, path, "mountOptions", kMaxMountOptions, result.mount_options);
  if (result.parameters.contains(kBackendParameter)) {
    reader.problem(absl::StrCat(path, ".parameters.", kBackendParameter),
                   "is set by Collage to this backend's name: remove it");
  }
  return result;
}

void read_classes(const Json& spec, const drivers::Kind* kind, SpecReader& reader, BackendSpec& result) {
  const Json* list = field_of(spec, "storageClasses");
  if (list == nullptr) return;
  std::set<std::string> names;
  int defaults = 0;
  for (const Json* element : reader.elements(*list, "spec.storageClasses", kMaxClasses)) {
    const std::string path = absl::StrCat("spec.storageClasses[", result.storage_classes.size(), "]");
    ClassSpec next = read_class(*element, path, reader);
    if (!next.name.empty() && !names.insert(next.name).second) {
      reader.problem(absl::StrCat(path, ".name"),
                     absl::StrCat("\"", next.name, "\" is there twice: each class needs its own name"));
    }
    if (next.is_default && ++defaults == 2) {
      reader.problem(absl::StrCat(path, ".default"),
                     "only one class can be the default one: remove the others");
    }
    if (kind != nullptr && next.allow_expansion && !kind->expands) {
      reader.problem(absl::StrCat(path, ".allowVolumeExpansion"),
                     absl::StrCat("volumes of ", kind->info.kind,
                                  " cannot be made larger: leave it out, or set it to false"));
    }
    if (kind != nullptr)
      check_parameters(next, absl::StrCat(path, ".parameters"), result.name, *kind, reader);
    result.storage_classes.push_back(std::move(next));
  }
}

void read_secret_name(const Json& spec, const char* field, const drivers::Kind* kind,
                      const std::vector<std::string>& keys, SpecReader& reader, std::string& name) {
  reader.read_name(spec, "spec", field, name);
  if (kind == nullptr) return;
  const std::string path = absl::StrCat("spec.", field);
  const bool given = field_of(spec, field) != nullptr;
  if (given && keys.empty())
    reader.problem(path, absl::StrCat(kind->info.kind, " needs no credentials: remove it"));
  if (!given && !keys.empty()) {
    reader.problem(
        path, absl::StrCat("is required by ", kind->info.kind, ": a Secret in the operator's namespace with ",
                           absl::StrJoin(keys, ", ")));
  }
}

void read_limits(const Json& spec, SpecReader& reader, Limits& limits) {
  const Json* json = field_of(spec, "limits");
  constexpr absl::string_view kPath = "spec.limits";
  if (json == nullptr || !reader.is_object(*json, kPath, {"maxVolumes", "maxVolumeSize", "maxProvisioned"}))
    return;
  reader.read_positive(*json, kPath, "maxVolumes", limits.max_volumes);
  reader.read_bytes(*json, kPath, "maxVolumeSize", limits.max_volume_bytes);
  reader.read_bytes(*json, kPath, "maxProvisioned", limits.max_provisioned_bytes);
}

LabelSelector::Expression read_expression(const Json& json, const std::string& path, SpecReader& reader) {
  LabelSelector::Expression result;
  if (!reader.is_object(json, path, {"key", "operator", "values"})) return result;
  reader.read(json, path, "key", result.key);
  if (!is_label_key(result.key))
    reader.problem(absl::StrCat(path, ".key"), "must be a label's key, such as team or example.com/team");
  if (field_of(json, "operator") == nullptr)
    reader.problem(absl::StrCat(path, ".operator"), "is required: In, NotIn, Exists or DoesNotExist");
  reader.read_one_of(json, path, "operator", {"In", "NotIn", "Exists", "DoesNotExist"}, result.op);
  const Json* values = field_of(json, "values");
  if (values != nullptr) {
    for (const Json* value : reader.elements(*values, absl::StrCat(path, ".values"), kMaxLabelValues)) {
      const std::string text = value->is_string() ? value->get<std::string>() : "?";
      if (!is_label_value(text))
        reader.problem(absl::StrCat(path, ".values"),
                       "must be values of labels: at most 63 letters, digits, '-', '_' and '.'");
      result.values.push_back(text);
    }
  }
  const bool wants_values = result.op == "In" || result.op == "NotIn";
  if (wants_values && result.values.empty())
    reader.problem(absl::StrCat(path, ".values"), "must be given with In and NotIn");
  if (!result.op.empty() && !wants_values && !result.values.empty()) {
    reader.problem(absl::StrCat(path, ".values"), "must be left out with Exists and DoesNotExist");
  }
  return result;
}

void read_allowed_namespaces(const Json& spec, SpecReader& reader, BackendSpec& result) {
  const Json* json = field_of(spec, "allowedNamespaces");
  const std::string path = "spec.allowedNamespaces";
  if (json == nullptr || !reader.is_object(*json, path, {"matchLabels", "matchExpressions"})) return;
  LabelSelector selector;
  reader.read_string_map(*json, path, "matchLabels", kMaxLabels, selector.match_labels);
  for (const auto& [key, value] : selector.match_labels) {
    if (!is_label_key(key) || !is_label_value(value)) {
      reader.problem(absl::StrCat(path, ".matchLabels"),
                     absl::StrCat("\"", key, "\": \"", value,
                                  "\" is no label: at most 63 letters, digits, '-', '_' and '.'"));
    }
  }
  if (const Json* list = field_of(*json, "matchExpressions"); list != nullptr) {
    for (const Json* element : reader.elements(*list, absl::StrCat(path, ".matchExpressions"), kMaxLabels)) {
      const std::string where =
          absl::StrCat(path, ".matchExpressions[", selector.match_expressions.size(), "]");
      selector.match_expressions.push_back(read_expression(*element, where, reader));
    }
  }
  result.allowed_namespaces = std::move(selector);
}

void read_policies(const Json& spec, SpecReader& reader, BackendSpec& result) {
  std::string deletion = "Block";
  reader.read_one_of(spec, "spec", "deletionPolicy", {"Block", "Orphan", "Delete"}, deletion);
  if (deletion == "Orphan") result.deletion_policy = DeletionPolicy::kOrphan;
  if (deletion == "Delete") result.deletion_policy = DeletionPolicy::kDelete;
  reader.read_one_of(spec, "spec", "onMountLost", {"Report", "DeletePod"}, result.on_mount_lost);
  reader.read(spec, "spec", "paused", result.paused);
  const Json* orphans = field_of(spec, "orphanPolicy");
  constexpr absl::string_view kPath = "spec.orphanPolicy";
  if (orphans == nullptr || !reader.is_object(*orphans, kPath, {"action", "after"})) return;
  reader.read_one_of(*orphans, kPath, "action", {"Report", "Delete"}, result.orphan_action);
  if (result.orphan_action == "Delete") {
    reader.problem(absl::StrCat(kPath, ".action"),
                   "Delete is not served yet: use Report, and remove by hand the orphans that it names");
  }
  reader.read_duration(*orphans, kPath, "after", result.orphan_after);
}

void read_head(const Json& object, SpecReader& reader, BackendSpec& result) {
  std::string text = std::string(kApiVersion);
  reader.read(object, "", "apiVersion", text);
  if (text != kApiVersion)
    reader.problem("apiVersion", absl::StrCat("must be ", kApiVersion, ", is \"", text, "\""));
  text = "StorageBackend";
  reader.read(object, "", "kind", text);
  if (text != "StorageBackend")
    reader.problem("kind", absl::StrCat("must be StorageBackend, is \"", text, "\""));
  if (const Json* metadata = field_of(object, "metadata"); metadata != nullptr)
    reader.read(*metadata, "metadata", "name", result.name);
  if (!is_dns_label(result.name)) {
    reader.problem("metadata.name", absl::StrCat("must be at most 63 lower case letters, digits and '-', "
                                                 "since it becomes part of volume handles; \"",
                                                 result.name, "\" is not"));
  }
}

bool expression_matches(const LabelSelector::Expression& expression,
                        const std::map<std::string, std::string>& labels) {
  const auto found = labels.find(expression.key);
  const bool there = found != labels.end();
  if (expression.op == "Exists") return there;
  if (expression.op == "DoesNotExist") return !there;
  const bool among = there && std::find(expression.values.begin(), expression.values.end(), found->second) !=
                                  expression.values.end();
  return expression.op == "In" ? among : !among;
}

}  // namespace

bool LabelSelector::matches(const std::map<std::string, std::string>& labels) const {
  const bool equal = std::all_of(match_labels.begin(), match_labels.end(), [&](const auto& wanted) {
    const auto found = labels.find(wanted.first);
    return found != labels.end() && found->second == wanted.second;
  });
  return equal &&
         std::all_of(match_expressions.begin(), match_expressions.end(),
                     [&](const Expression& expression) { return expression_matches(expression, labels); });
}

absl::StatusOr<BackendSpec> parse_backend_spec(const Json& object, const std::vector<drivers::Kind>& kinds) {
  SpecReader reader;
  BackendSpec result;
  if (!reader.is_object(object, "StorageBackend", {"apiVersion", "kind", "metadata", "spec", "status"}))
    return reader.status();
  read_head(object, reader, result);

  const Json* spec = field_of(object, "spec");
  if (spec == nullptr) {
    reader.problem("spec", absl::StrCat("exactly one driver block is needed, one of ", kind_names(kinds),
                                        "; found none"));
    return reader.status();
  }
  std::vector<std::string> known;
  for (const drivers::Kind& kind : kinds) known.push_back(kind.info.kind);
  known.insert(known.end(), {"credentialsSecret", "nodeCredentialsSecret", "storageClasses", "limits",
                             "allowedNamespaces", "deletionPolicy", "orphanPolicy", "onMountLost", "paused"});
  if (!reader.is_object(*spec, "spec", known)) return reader.status();

  const drivers::Kind* kind = read_block(*spec, kinds, reader, result);
  if (kind != nullptr) {
    // The driver names its own fields in full.
    if (const absl::Status status = kind->validate(*result.block); !status.ok())
      reader.problem(status.message());
  }
  static const std::vector<std::string> kNone;
  read_secret_name(*spec, "credentialsSecret", kind, kind ? kind->info.credentials : kNone, reader,
                   result.credentials_secret);
  read_secret_name(*spec, "nodeCredentialsSecret", kind, kind ? kind->info.node_credentials : kNone, reader,
                   result.node_credentials_secret);
  read_classes(*spec, kind, reader, result);
  read_limits(*spec, reader, result.limits);
  read_allowed_namespaces(*spec, reader, result);
  read_policies(*spec, reader, result);
  if (absl::Status status = reader.status(); !status.ok()) return status;
  return result;
}

absl::Status check_backend_update(const BackendSpec& before, const BackendSpec& after) {
  constexpr absl::string_view kRemedy = "make a new StorageBackend instead, volumes stay where they are";
  if (before.kind != after.kind) {
    return absl::InvalidArgumentError(absl::StrCat("spec: the driver block cannot change from ", before.kind,
                                                   " to ", after.kind, ": ", kRemedy));
  }
  SpecReader reader;
  // Every field of the blocks that there are says which storage it is.
  for (const Json* side : {before.block.get(), after.block.get()}) {
    for (const auto& [key, value] : side->items()) {
      const Json* old_value = field_of(*before.block, key);
      const Json* new_value = field_of(*after.block, key);
      if (old_value != nullptr && new_value != nullptr && *old_value == *new_value) continue;
      if (side == after.block.get() && old_value != nullptr) continue;  // told already
      reader.problem(absl::StrCat("spec.", after.kind, ".", key), absl::StrCat("cannot change: ", kRemedy));
    }
  }
  return reader.status();
}

}  // namespace collage::engine
