#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "base/json.h"
#include "drivers/kind.h"
#include "drivers/volume.h"
#include "operator/engine/class_parameters.h"
#include "operator/kube/objects.h"

namespace collage::reconcile {

// A class's secret references with all tokens filled in, by call ("node-stage", ...).
using SecretRefs = std::map<std::string, engine::ClassParameters::SecretTemplate>;

// INVALID_ARGUMENT names the reference whose token has no value.
absl::StatusOr<SecretRefs> resolve_secrets(const engine::ClassParameters& parameters,
                                           const engine::TemplateValues& values);

struct VolumeObjectInput {
  const kube::Claim& claim;
  const kube::StorageClass& storage_class;
  const drivers::Kind& kind;
  const drivers::CreateRequest& request;
  const drivers::Volume& volume;  // capacity_bytes > 0
  const std::string& backend;
  const std::string& system_id;  // "" when it is not known
  const SecretRefs& secrets;
  const std::string& node_secret;            // the backend's nodeCredentialsSecret, "" for none
  const std::string& node_secret_namespace;  // the operator's
};

// The PersistentVolume for a volume that was made for a claim (contract 29 to 32): a pure function. It
// carries the attacher's finalizer from the start where the kind attaches, which saves a write at the first
// attach.
base::Json make_volume_object(const VolumeObjectInput& input);

}  // namespace collage::reconcile
