#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "operator/node/journal.h"

namespace collage::node {
namespace {

using base::Json;

constexpr int kVersion = 1;

constexpr std::array<std::pair<StageState, const char*>, 3> kStageStates = {
    {{StageState::kStaging, "staging"},
     {StageState::kStaged, "staged"},
     {StageState::kUnstaging, "unstaging"}}};
constexpr std::array<std::pair<PublishState, const char*>, 3> kPublishStates = {
    {{PublishState::kPublishing, "publishing"},
     {PublishState::kPublished, "published"},
     {PublishState::kUnpublishing, "unpublishing"}}};
constexpr std::array<std::pair<drivers::VolumeMode, const char*>, 2> kModes = {
    {{drivers::VolumeMode::kFilesystem, "filesystem"}, {drivers::VolumeMode::kBlock, "block"}}};

template <typename T, size_t n>
const char* word(const std::array<std::pair<T, const char*>, n>& words, T value) {
  for (const auto& [known, text] : words) {
    if (known == value) return text;
  }
  return "";
}

template <typename T, size_t n>
absl::Status read_word(const std::array<std::pair<T, const char*>, n>& words, const Json& json,
                       const char* field, T& value) {
  const std::string text = base::get_string(json, absl::StrCat("/", field));
  for (const auto& [known, name] : words) {
    if (text == name) {
      value = known;
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(field, ": \"", text, "\" is no word of the journal"));
}

absl::StatusOr<Json> access_json(const drivers::Access& access) {
  if (const auto* loop = std::get_if<drivers::LoopFile>(&access))
    return Json{{"loopFile", {{"path", loop->path}}}};
  if (const auto* directory = std::get_if<drivers::Directory>(&access))
    return Json{{"directory", {{"path", directory->path}}}};
  if (const auto* device = std::get_if<drivers::BlockDevice>(&access)) {
    return Json{{"blockDevice", {{"serial", device->serial}, {"byId", device->by_id}}}};
  }
  return absl::UnimplementedError("this version has no mounter for this kind of access");
}

absl::StatusOr<drivers::Access> access_from(const Json& json) {
  if (base::find(json, "/access/loopFile") != nullptr)
    return drivers::LoopFile{base::get_string(json, "/access/loopFile/path")};
  if (base::find(json, "/access/directory") != nullptr)
    return drivers::Directory{base::get_string(json, "/access/directory/path")};
  if (base::find(json, "/access/blockDevice") != nullptr) {
    drivers::BlockDevice device{base::get_string(json, "/access/blockDevice/serial"), {}};
    if (const Json* names = base::find(json, "/access/blockDevice/byId");
        names != nullptr && names->is_array()) {
      for (const Json& name : *names) {
        if (name.is_string()) device.by_id.push_back(name.get<std::string>());
      }
    }
    return device;
  }
  return absl::InvalidArgumentError("access: has none of loopFile, directory and blockDevice");
}

// All 64 bits: numbers of devices and files may have the highest one set. 0 when it is no such number.
uint64_t unsigned_from(const Json& json, std::string_view pointer) {
  const Json* found = base::find(json, pointer);
  return found != nullptr && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
}

}  // namespace

absl::StatusOr<Json> to_json(const VolumeRecord& record) {
  COLLAGE_ASSIGN_OR_RETURN(Json access, access_json(record.access));
  Json publications = Json::object();
  for (const auto& [target, publication] : record.publications) {
    Json entry = {{"state", word(kPublishStates, publication.state)}, {"readOnly", publication.read_only}};
    if (publication.lost) entry["lost"] = true;
    if (publication.healed_at != base::Clock::Wall{})
      entry["healedAt"] = base::rfc3339_micro(publication.healed_at);
    if (const PodRef& pod = publication.pod; !pod.name.empty())
      entry["pod"] = {{"namespace", pod.name_space}, {"name", pod.name}, {"uid", pod.uid}};
    publications[target] = std::move(entry);
  }
  return Json{{"version", kVersion},
              {"handle", record.handle},
              {"kind", record.kind},
              {"bootID", record.boot_id},
              {"state", word(kStageStates, record.state)},
              {"stagingPath", record.staging_path},
              {"access", std::move(access)},
              {"mode", word(kModes, record.mode)},
              {"accessMode", static_cast<int>(record.access_mode)},
              {"fsType", record.fs_type},
              {"options", record.options},
              {"readOnly", record.read_only},
              {"reached",
               {{"path", record.reached.path},
                {"number", record.reached.number},
                {"fileDevice", record.reached.file_device},
                {"fileInode", record.reached.file_inode}}},
              {"publications", std::move(publications)}};
}

absl::StatusOr<VolumeRecord> record_from_json(const Json& json) {
  const int64_t version = base::get_int(json, "/version");
  if (version > kVersion)
    return absl::UnimplementedError(absl::StrCat("version ", version, " is newer than this program"));
  if (version != kVersion) return absl::InvalidArgumentError("version: is missing");
  VolumeRecord record;
  record.handle = base::get_string(json, "/handle");
  record.kind = base::get_string(json, "/kind");
  record.boot_id = base::get_string(json, "/bootID");
  record.staging_path = base::get_string(json, "/stagingPath");
  if (record.handle.empty()) return absl::InvalidArgumentError("handle: is missing");
  if (record.staging_path.empty()) return absl::InvalidArgumentError("stagingPath: is missing");
  COLLAGE_RETURN_IF_ERROR(read_word(kStageStates, json, "state", record.state));
  COLLAGE_RETURN_IF_ERROR(read_word(kModes, json, "mode", record.mode));
  COLLAGE_ASSIGN_OR_RETURN(record.access, access_from(json));
  const int64_t access_mode = base::get_int(json, "/accessMode");
  if (access_mode < 1 || access_mode > 7) return absl::InvalidArgumentError("accessMode: is not known");
  record.access_mode = static_cast<drivers::AccessMode>(access_mode);
  record.fs_type = base::get_string(json, "/fsType");
  record.options = base::get_string(json, "/options");
  record.read_only = base::get_bool(json, "/readOnly");
  record.reached = {base::get_string(json, "/reached/path"), base::get_string(json, "/reached/number"),
                    unsigned_from(json, "/reached/fileDevice"), unsigned_from(json, "/reached/fileInode")};
  const Json* publications = base::find(json, "/publications");
  if (publications == nullptr || !publications->is_object())
    return absl::InvalidArgumentError("publications: is missing");
  for (const auto& [target, entry] : publications->items()) {
    Publication& publication = record.publications[target];
    COLLAGE_RETURN_IF_ERROR(read_word(kPublishStates, entry, "state", publication.state));
    publication.read_only = base::get_bool(entry, "/readOnly");
    publication.lost = base::get_bool(entry, "/lost");
    publication.healed_at = base::parse_rfc3339(base::get_string(entry, "/healedAt"));
    publication.pod = {base::get_string(entry, "/pod/namespace"), base::get_string(entry, "/pod/name"),
                       base::get_string(entry, "/pod/uid")};
  }
  return record;
}

}  // namespace collage::node
