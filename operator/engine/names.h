#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

// Every name that Collage gives to something, in one place.
namespace collage::engine {

inline constexpr char kGroup[] = "collage.storage";
// Class parameters that name the backend. All others are the driver's.
inline constexpr char kBackendParameter[] = "backend";
// On objects that the operator keeps for a backend.
inline constexpr char kBackendLabel[] = "collage.storage/backend";
inline constexpr char kSpecHashAnnotation[] = "collage.storage/spec-hash";
// PersistentVolume spec.csi.volumeAttributes: the storage system that the volume was made on.
inline constexpr char kSystemIdAttribute[] = "collage.storage/system-id";
inline constexpr char kBackendFinalizer[] = "collage.storage/backend";
inline constexpr char kProvisionerFinalizer[] = "external-provisioner.volume.kubernetes.io/finalizer";

// "pvc-<claim uid>": the volume's name at the provider and the PersistentVolume's name.
std::string volume_name(std::string_view claim_uid);
// "" when the name is not of that form.
std::string claim_uid_of(std::string_view volume_name);

// "image.collage.storage" -> "external-attacher/image-collage-storage" (contract F: other characters become
// '-', a trailing '-' gets an 'X').
std::string attacher_finalizer(std::string_view csi_driver);
// "image.collage.storage" -> "image"; "" when it is not one of ours.
std::string kind_of_csi_driver(std::string_view csi_driver);

// What Kubernetes takes as a name: a DNS-1123 label (at most 63) or subdomain (at most 253), a label's key
// and value.
bool is_dns_label(std::string_view text);
bool is_dns_subdomain(std::string_view text);
bool is_label_key(std::string_view text);
bool is_label_value(std::string_view text);

}  // namespace collage::engine
