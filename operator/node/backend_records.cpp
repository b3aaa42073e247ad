#include "operator/node/backend_records.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "base/log.h"
#include "base/status.h"

namespace collage::node {
namespace {

using base::Json;

constexpr int kVersion = 1;
constexpr char kSuffix[] = ".json";

}  // namespace

// The names of StorageBackends are DNS labels: file names as they are.
std::string BackendRecords::path_of(const std::string& backend) const {
  return absl::StrCat(directory_, "/", backend, kSuffix);
}

std::string BackendRecords::find(const BackendConfig& config) const {
  const absl::StatusOr<std::string> text = base::read_file(path_of(config.name));
  if (!text.ok()) return "";
  const absl::StatusOr<Json> record = base::parse_json(*text);
  const Json* block = record.ok() ? base::find(*record, "/block") : nullptr;
  if (block == nullptr) {
    base::log::error(base::Context(), "the note of a backend's storage cannot be read and counts as none",
                     {{"backend", config.name}, {"path", path_of(config.name)}});
    return "";
  }
  // A backend of the same name with another directory has other storage.
  return *block == *config.block ? base::get_string(*record, "/systemID") : "";
}

absl::Status BackendRecords::write(const BackendConfig& config, const std::string& system_id) const {
  COLLAGE_RETURN_IF_ERROR(base::make_directories(directory_, 0700));
  const Json record = {{"version", kVersion}, {"block", *config.block}, {"systemID", system_id}};
  return base::write_file_atomic(path_of(config.name), base::dump_json(record), 0600);
}

void BackendRecords::keep_only(const std::vector<BackendConfig>& configs) const {
  const absl::StatusOr<std::vector<std::string>> names = base::list_directory(directory_);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    const bool kept = std::any_of(configs.begin(), configs.end(), [&](const BackendConfig& config) {
      return absl::StrCat(config.name, kSuffix) == name;
    });
    if (kept || !name.ends_with(kSuffix)) continue;
    const absl::Status removed = base::remove_file(absl::StrCat(directory_, "/", name));
    if (!removed.ok())
      base::log::warning(base::Context(), "the note of a backend that is gone cannot be removed",
                         {{"path", name}, {"error", removed}});
  }
}

}  // namespace collage::node
