#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "drivers/volume.h"

namespace collage::engine {

// A StorageClass's parameters taken apart (contract C, 15 to 18).
struct ClassParameters {
  std::string backend;        // parameter "backend"
  std::string fs_type;        // csi.storage.k8s.io/fstype, or the older fstype / fsType; both: an error
  drivers::StringMap driver;  // what is left: the driver's own
  // "controller-publish" -> {name template, namespace template}; the shorthand secret-name fills all that are
  // not given.
  struct SecretTemplate {
    std::string name, name_space;
  };
  std::map<std::string, SecretTemplate> secrets;
};

// INVALID_ARGUMENT names the parameter: an unknown csi.storage.k8s.io/ key, fstype twice, half of a secret
// pair, no backend.
absl::StatusOr<ClassParameters> parse_class_parameters(const drivers::StringMap& parameters);

struct TemplateValues {
  std::string volume_name, claim_namespace, claim_name;
  drivers::StringMap claim_annotations;
};
// Fills ${pv.name}, ${pvc.namespace} and, in names only, ${pvc.name} and ${pvc.annotations['key']}.
// INVALID_ARGUMENT on any other token.
absl::StatusOr<ClassParameters::SecretTemplate> resolve_secret(const ClassParameters::SecretTemplate& secret,
                                                               const TemplateValues& values);

}  // namespace collage::engine
