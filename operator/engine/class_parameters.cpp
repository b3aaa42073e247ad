#include "operator/engine/class_parameters.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/status.h"
#include "operator/engine/names.h"

namespace collage::engine {
namespace {

constexpr absl::string_view kCsiPrefix = "csi.storage.k8s.io/";
constexpr absl::string_view kSecretName = "secret-name";
constexpr absl::string_view kSecretNamespace = "secret-namespace";
// The calls that a class can name a secret for.
constexpr std::array<absl::string_view, 7> kSecretUses = {
    "provisioner",       "controller-publish", "node-stage",       "node-publish",
    "controller-expand", "node-expand",        "controller-modify"};

absl::Status bad(absl::string_view parameter, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("StorageClass parameter \"", parameter, "\": ", problem));
}

// The secret named by <prefix>secret-name and <prefix>secret-namespace; nothing when neither is given.
absl::StatusOr<std::optional<ClassParameters::SecretTemplate>> secret_of(const drivers::StringMap& parameters,
                                                                         const std::string& prefix) {
  const std::string name_key = absl::StrCat(prefix, kSecretName);
  const std::string namespace_key = absl::StrCat(prefix, kSecretNamespace);
  const auto name = parameters.find(name_key);
  const auto name_space = parameters.find(namespace_key);
  if (name == parameters.end() && name_space == parameters.end()) return std::nullopt;
  if (name == parameters.end() || name->second.empty()) {
    return bad(name_key, "a secret needs both its name and its namespace: give this one too");
  }
  if (name_space == parameters.end() || name_space->second.empty()) {
    return bad(namespace_key, "a secret needs both its name and its namespace: give this one too");
  }
  return ClassParameters::SecretTemplate{name->second, name_space->second};
}

bool is_known_csi_key(absl::string_view key) {
  key.remove_prefix(kCsiPrefix.size());
  if (key == "fstype" || key == kSecretName || key == kSecretNamespace) return true;
  return std::any_of(kSecretUses.begin(), kSecretUses.end(), [&](absl::string_view use) {
    return key == absl::StrCat(use, "-", kSecretName) || key == absl::StrCat(use, "-", kSecretNamespace);
  });
}

// One token's value; nullopt when there is no such token here.
std::optional<std::string> token_value(absl::string_view token, const TemplateValues& values, bool in_name) {
  if (token == "pv.name") return values.volume_name;
  if (token == "pvc.namespace") return values.claim_namespace;
  if (!in_name) return std::nullopt;
  if (token == "pvc.name" && !values.claim_name.empty()) return values.claim_name;
  constexpr absl::string_view kAnnotation = "pvc.annotations['";
  if (absl::StartsWith(token, kAnnotation) && absl::EndsWith(token, "']") &&
      token.size() > kAnnotation.size() + 2) {
    token.remove_prefix(kAnnotation.size());
    token.remove_suffix(2);
    const auto found = values.claim_annotations.find(std::string(token));
    if (found != values.claim_annotations.end()) return found->second;
  }
  return std::nullopt;
}

absl::StatusOr<std::string> fill(absl::string_view text, const TemplateValues& values, bool in_name) {
  const absl::string_view what = in_name ? "name" : "namespace";
  std::string out;
  for (size_t at = 0; at < text.size();) {
    if (text[at] != '$') {
      out += text[at++];
      continue;
    }
    const size_t end = text.find('}', at);
    if (at + 1 >= text.size() || text[at + 1] != '{' || end == absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("secret ", what, " \"", text, "\": '$' must begin a token, such as ${pv.name}"));
    }
    const absl::string_view token = text.substr(at + 2, end - at - 2);
    const std::optional<std::string> value = token_value(token, values, in_name);
    if (!value || value->empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("secret ", what, " \"", text, "\": ${", token, "} has no value here; ",
                       in_name ? "a name may use ${pv.name}, ${pvc.namespace}, ${pvc.name} and "
                                 "${pvc.annotations['key']}, the last two only while the claim exists"
                               : "a namespace may use ${pv.name} and ${pvc.namespace}"));
    }
    out += *value;
    at = end + 1;
  }
  return out;
}

}  // namespace

absl::StatusOr<ClassParameters> parse_class_parameters(const drivers::StringMap& parameters) {
  ClassParameters result;
  std::vector<std::string> fs_type_keys;
  bool has_backend = false;
  for (const auto& [key, value] : parameters) {
    if (key == kBackendParameter) {
      if (value.empty()) return bad(key, "must name a StorageBackend, is empty");
      result.backend = value;
      has_backend = true;
    } else if (key == "csi.storage.k8s.io/fstype" || absl::AsciiStrToLower(key) == "fstype") {
      fs_type_keys.push_back(key);
      result.fs_type = value;
    } else if (!absl::StartsWith(key, kCsiPrefix)) {
      result.driver.emplace(key, value);
    } else if (!is_known_csi_key(key)) {
      return bad(key, absl::StrCat("is not known; the keys with this prefix are fstype, secret-name, "
                                   "secret-namespace and <call>-secret-name, "
                                   "<call>-secret-namespace, where <call> is one of ",
                                   absl::StrJoin(kSecretUses, ", ")));
    }
  }
  if (fs_type_keys.size() > 1) {
    return bad(fs_type_keys.front(), absl::StrCat("the file system type is also given by \"",
                                                  fs_type_keys.back(), "\": keep one of them"));
  }
  if (!has_backend)
    return bad(kBackendParameter, "is missing: name the StorageBackend that holds the volumes of this class");

  COLLAGE_ASSIGN_OR_RETURN(const auto shorthand, secret_of(parameters, std::string(kCsiPrefix)));
  for (absl::string_view use : kSecretUses) {
    COLLAGE_ASSIGN_OR_RETURN(auto secret, secret_of(parameters, absl::StrCat(kCsiPrefix, use, "-")));
    if (!secret) secret = shorthand;
    if (secret) result.secrets.emplace(use, *std::move(secret));
  }
  return result;
}

absl::StatusOr<ClassParameters::SecretTemplate> resolve_secret(const ClassParameters::SecretTemplate& secret,
                                                               const TemplateValues& values) {
  ClassParameters::SecretTemplate resolved;
  COLLAGE_ASSIGN_OR_RETURN(resolved.name, fill(secret.name, values, true));
  COLLAGE_ASSIGN_OR_RETURN(resolved.name_space, fill(secret.name_space, values, false));
  if (!is_dns_subdomain(resolved.name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("secret name \"", secret.name, "\" becomes \"", resolved.name,
                     "\", which is no name of a Secret: use lower case letters, digits, '-' and '.'"));
  }
  if (!is_dns_label(resolved.name_space)) {
    return absl::InvalidArgumentError(
        absl::StrCat("secret namespace \"", secret.name_space, "\" becomes \"", resolved.name_space,
                     "\", which is no name of a namespace: use lower case letters, digits and '-'"));
  }
  return resolved;
}

}  // namespace collage::engine
