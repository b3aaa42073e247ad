#include "operator/engine/claim_request.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/quantity.h"
#include "base/status.h"
#include "operator/engine/names.h"

namespace collage::engine {
namespace {

using drivers::AccessMode;
using drivers::DriverInfo;

constexpr absl::string_view kReadWriteOnce = "ReadWriteOnce";
constexpr absl::string_view kReadOnlyMany = "ReadOnlyMany";
constexpr absl::string_view kReadWriteMany = "ReadWriteMany";
constexpr absl::string_view kReadWriteOncePod = "ReadWriteOncePod";
constexpr absl::string_view kAllModes[] = {kReadWriteOnce, kReadOnlyMany, kReadWriteMany, kReadWriteOncePod};

// nullopt: Kubernetes has no such mode.
std::optional<AccessMode> mapped(absl::string_view mode, const DriverInfo& info) {
  // A driver that tells several writers on one node from a single one is told which it is.
  const bool tells_apart = drivers::supports(info, AccessMode::kSingleNodeMultiWriter);
  if (mode == kReadWriteOnce)
    return tells_apart ? AccessMode::kSingleNodeMultiWriter : AccessMode::kSingleNodeWriter;
  if (mode == kReadWriteOncePod)
    return tells_apart ? AccessMode::kSingleNodeSingleWriter : AccessMode::kSingleNodeWriter;
  if (mode == kReadOnlyMany) return AccessMode::kMultiNodeReaderOnly;
  if (mode == kReadWriteMany) return AccessMode::kMultiNodeMultiWriter;
  return std::nullopt;
}

std::string served(const DriverInfo& info) {
  std::vector<absl::string_view> modes;
  for (absl::string_view mode : kAllModes) {
    if (drivers::supports(info, *mapped(mode, info))) modes.push_back(mode);
  }
  return absl::StrJoin(modes, ", ");
}

// The size. `out_of_range`: another size would do.
void check_size(const ClaimFacts& claim, const DriverInfo& info, std::vector<std::string>& problems,
                bool& out_of_range) {
  constexpr absl::string_view kField = "spec.resources.requests.storage";
  if (claim.requested_bytes <= 0) {
    problems.push_back(absl::StrCat(kField, ": must be a quantity greater than zero, such as 1Gi",
                                    claim.requested_bytes == 0 ? "; it is 0" : ""));
    return;
  }
  if (claim.limit_bytes > 0 && claim.requested_bytes > claim.limit_bytes) {
    problems.push_back(absl::StrCat(kField, ": ", base::format_quantity(claim.requested_bytes),
                                    " is more than spec.resources.limits.storage, ",
                                    base::format_quantity(claim.limit_bytes),
                                    ": lower the one or raise the other"));
    out_of_range = true;
    return;
  }
  const auto size =
      drivers::volume_size(info, {.required_bytes = claim.requested_bytes, .limit_bytes = claim.limit_bytes});
  if (!size.ok()) {
    problems.push_back(absl::StrCat(kField, ": ", size.status().message()));
    out_of_range = true;
  }
}

std::string of_class(const ClaimRequestInput& input) {
  return input.class_name.empty() ? "" : absl::StrCat("StorageClass \"", input.class_name, "\": ");
}

void check_parameters(const ClaimRequestInput& input, std::vector<std::string>& problems) {
  for (const auto& [key, value] : input.parameters.driver) {
    const auto& known = input.info.parameters;
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    problems.push_back(absl::StrCat(
        of_class(input), "StorageClass parameter \"", key, "\": ", input.info.kind, " does not know it; ",
        known.empty() ? "it takes none of its own" : absl::StrCat("it knows ", absl::StrJoin(known, ", ")),
        ": correct the name or leave it out"));
  }
}

// The file system for a claim with a mount: the class's, else the driver's first.
std::string choose_fs_type(const ClaimRequestInput& input, std::vector<std::string>& problems) {
  const auto& known = input.info.fs_types;
  const std::string& asked = input.parameters.fs_type;
  if (asked.empty()) return known.empty() ? "" : known.front();
  if (std::find(known.begin(), known.end(), asked) == known.end()) {
    problems.push_back(absl::StrCat(
        of_class(input), "StorageClass parameter \"csi.storage.k8s.io/fstype\": ", input.info.kind,
        " cannot make ", asked,
        known.empty() ? "; its volumes come with a file system: leave the parameter out"
                      : absl::StrCat("; use one of ", absl::StrJoin(known, ", "))));
  }
  return asked;
}

std::vector<drivers::VolumeCapability> make_capabilities(const ClaimRequestInput& input,
                                                         const std::vector<AccessMode>& modes,
                                                         std::vector<std::string>& problems) {
  drivers::VolumeCapability shared;
  shared.mode = input.claim.block ? drivers::VolumeMode::kBlock : drivers::VolumeMode::kFilesystem;
  if (!drivers::supports(input.info, shared.mode)) {
    problems.push_back(absl::StrCat("spec.volumeMode: ", input.claim.block ? "Block" : "Filesystem",
                                    " cannot be served by ", input.info.kind, "; use ",
                                    input.claim.block ? "Filesystem" : "Block"));
  } else if (!input.claim.block) {
    shared.fs_type = choose_fs_type(input, problems);
    shared.mount_flags = input.mount_options;
  }
  std::vector<drivers::VolumeCapability> capabilities;
  for (AccessMode mode : modes) {
    shared.access_mode = mode;
    // Two of Kubernetes' modes may be one mode of the driver.
    if (std::find(capabilities.begin(), capabilities.end(), shared) == capabilities.end())
      capabilities.push_back(shared);
  }
  return capabilities;
}

}  // namespace

absl::StatusOr<std::vector<AccessMode>> map_access_modes(const std::vector<std::string>& modes,
                                                         const DriverInfo& info) {
  constexpr absl::string_view kField = "spec.accessModes: ";
  if (modes.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kField, "none is asked for; ", info.kind, " serves ", served(info)));
  }
  if (modes.size() > 1 && std::find(modes.begin(), modes.end(), kReadWriteOncePod) != modes.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kField, kReadWriteOncePod, " cannot be combined with another mode: ask for it alone"));
  }
  std::vector<AccessMode> result;
  std::vector<absl::string_view> refused;
  for (const std::string& mode : modes) {
    const std::optional<AccessMode> access_mode = mapped(mode, info);
    if (access_mode && drivers::supports(info, *access_mode)) {
      result.push_back(*access_mode);
    } else {
      refused.push_back(mode);
    }
  }
  if (!refused.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(kField, absl::StrJoin(refused, ", "),
                                                   " cannot be served by ", info.kind, ", which serves ",
                                                   served(info)));
  }
  return result;
}

absl::StatusOr<AccessMode> attach_access_mode(const std::vector<std::string>& modes, const DriverInfo& info) {
  COLLAGE_RETURN_IF_ERROR(map_access_modes(modes, info).status());
  const auto asked = [&](absl::string_view mode) {
    return std::find(modes.begin(), modes.end(), mode) != modes.end();
  };
  if (asked(kReadWriteMany)) return *mapped(kReadWriteMany, info);
  if (asked(kReadOnlyMany) && asked(kReadWriteOnce)) {
    return absl::InvalidArgumentError(
        "spec.accessModes: ReadWriteOnce together with ReadOnlyMany cannot be attached: a volume serves one "
        "of them at a time");
  }
  if (asked(kReadOnlyMany)) return *mapped(kReadOnlyMany, info);
  return *mapped(asked(kReadWriteOncePod) ? kReadWriteOncePod : kReadWriteOnce, info);
}

absl::StatusOr<drivers::CreateRequest> make_create_request(const ClaimRequestInput& input) {
  const ClaimFacts& claim = input.claim;
  std::vector<std::string> problems;
  const absl::StatusOr<std::vector<AccessMode>> modes = map_access_modes(claim.access_modes, input.info);
  if (!modes.ok()) problems.emplace_back(modes.status().message());

  drivers::CreateRequest request;
  request.name = volume_name(claim.uid);
  request.capabilities = make_capabilities(input, modes.ok() ? *modes : std::vector<AccessMode>{}, problems);
  check_parameters(input, problems);
  bool out_of_range = false;
  const size_t other_problems = problems.size();
  check_size(claim, input.info, problems, out_of_range);
  if (!problems.empty()) {
    const std::string message = absl::StrJoin(problems, "; ");
    if (out_of_range && other_problems == 0) return absl::OutOfRangeError(message);
    return absl::InvalidArgumentError(message);
  }
  request.required_bytes = claim.requested_bytes;
  request.limit_bytes = claim.limit_bytes;
  request.parameters = input.parameters.driver;
  request.tags = {{drivers::kTagCluster, input.cluster_id},
                  {drivers::kTagClaim, absl::StrCat(claim.name_space, "/", claim.name)},
                  {drivers::kTagVolume, request.name}};
  request.requisite = input.topology.requisite;
  request.preferred = input.topology.preferred;
  return request;
}

}  // namespace collage::engine
