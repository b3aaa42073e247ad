#include "drivers/codec.h"

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status.h"
#include "drivers/driver.h"

namespace collage::drivers {

namespace {

using base::Json;

// Fields of one JSON object, read with their types checked. A field that is missing or null keeps the
// default. The first error stays; status() tells it at the end.
class Reader {
 public:
  Reader(const Json& json, absl::string_view what) : json_(json), what_(what) {
    if (!json.is_object()) fail("", "must be an object");
  }

  void text(const char* key, std::string* out) {
    const Json* value = get(key);
    if (value == nullptr) return;
    if (!value->is_string()) return fail(key, "must be a string");
    *out = value->get_ref<const std::string&>();
  }

  void integer(const char* key, int64_t* out) {
    const Json* value = get(key);
    if (value == nullptr) return;
    if (!value->is_number_integer()) return fail(key, "must be an integer");
    if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
      return fail(key, "must be an integer below 2^63");
    }
    *out = value->get<int64_t>();
  }

  void map(const char* key, StringMap* out) {
    const Json* value = get(key);
    if (value == nullptr) return;
    take(key, string_map_from_json(*value), out);
  }

  // A list whose elements `parse` reads.
  template <typename T, typename Parse>
  void list(const char* key, std::vector<T>* out, Parse parse) {
    const Json* value = get(key);
    if (value == nullptr) return;
    if (!value->is_array()) return fail(key, "must be a list");
    for (const Json& element : *value) {
      T item{};
      take(key, parse(element), &item);
      out->push_back(std::move(item));
    }
  }

  template <typename T>
  void take(const char* key, absl::StatusOr<T> value, T* out) {
    if (!value.ok()) return fail(key, value.status().message());
    *out = *std::move(value);
  }

  // Requests are read strictly: a field that this version does not know could be the one that matters.
  void only(std::initializer_list<absl::string_view> known) {
    if (!json_.is_object()) return;
    for (const auto& [key, value] : json_.items()) {
      bool found = false;
      for (absl::string_view one : known) found = found || one == key;
      if (!found) return fail(key, "unknown field");
    }
  }

  const Json* get(const char* key) const {
    if (!json_.is_object()) return nullptr;
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }

  void fail(absl::string_view key, absl::string_view problem) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(key.empty() ? absl::StrCat(what_, ": ", problem)
                                                     : absl::StrCat(what_, ".", key, ": ", problem));
  }

  const absl::Status& status() const { return status_; }

 private:
  const Json& json_;
  absl::string_view what_;
  absl::Status status_;
};

absl::StatusOr<std::string> string_from_json(const Json& json) {
  if (!json.is_string()) return absl::InvalidArgumentError("must be a string");
  return json.get<std::string>();
}

absl::StatusOr<VolumeMode> volume_mode_from_string(const std::string& text) {
  for (VolumeMode mode : {VolumeMode::kFilesystem, VolumeMode::kBlock}) {
    if (to_string(mode) == text) return mode;
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown volume mode \"", text, "\""));
}

absl::StatusOr<AccessMode> access_mode_from_string(const std::string& text) {
  for (AccessMode mode :
       {AccessMode::kSingleNodeWriter, AccessMode::kSingleNodeReaderOnly, AccessMode::kMultiNodeReaderOnly,
        AccessMode::kMultiNodeSingleWriter, AccessMode::kMultiNodeMultiWriter,
        AccessMode::kSingleNodeSingleWriter, AccessMode::kSingleNodeMultiWriter}) {
    if (to_string(mode) == text) return mode;
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown access mode \"", text, "\""));
}

void put(Json* json, const char* key, const std::string& value) {
  if (!value.empty()) (*json)[key] = value;
}

void put(Json* json, const char* key, int64_t value) {
  if (value != 0) (*json)[key] = value;
}

void put(Json* json, const char* key, const StringMap& value) {
  if (!value.empty()) (*json)[key] = to_json(value);
}

void put(Json* json, const char* key, const std::vector<Topology>& value) {
  if (value.empty()) return;
  Json list = Json::array();
  for (const Topology& topology : value) list.push_back(to_json(topology));
  (*json)[key] = std::move(list);
}

}  // namespace

Json to_json(const StringMap& map) {
  Json json = Json::object();
  for (const auto& [key, value] : map) json[key] = value;
  return json;
}

Json to_json(const VolumeCapability& capability) {
  Json json = Json::object();
  if (capability.mode != VolumeMode::kFilesystem) json["volumeMode"] = to_string(capability.mode);
  if (capability.access_mode != AccessMode::kSingleNodeWriter)
    json["accessMode"] = to_string(capability.access_mode);
  put(&json, "fsType", capability.fs_type);
  if (!capability.mount_flags.empty()) json["mountFlags"] = capability.mount_flags;
  return json;
}

Json to_json(const CreateRequest& request) {
  Json json = Json::object();
  put(&json, "name", request.name);
  put(&json, "requiredBytes", request.required_bytes);
  put(&json, "limitBytes", request.limit_bytes);
  if (!request.capabilities.empty()) {
    Json list = Json::array();
    for (const VolumeCapability& capability : request.capabilities) list.push_back(to_json(capability));
    json["capabilities"] = std::move(list);
  }
  put(&json, "parameters", request.parameters);
  put(&json, "tags", request.tags);
  put(&json, "requisite", request.requisite);
  put(&json, "preferred", request.preferred);
  return json;
}

Json to_json(const Volume& volume) {
  Json json = Json::object();
  put(&json, "id", volume.id);
  put(&json, "name", volume.name);
  put(&json, "capacityBytes", volume.capacity_bytes);
  put(&json, "context", volume.context);
  put(&json, "accessible", volume.accessible);
  put(&json, "tags", volume.tags);
  put(&json, "attachedTo", volume.attached_to);
  put(&json, "problem", volume.problem);
  return json;
}

Json to_json(const VolumePage& page) {
  Json json = Json::object();
  Json list = Json::array();
  for (const Volume& volume : page.volumes) list.push_back(to_json(volume));
  json["volumes"] = std::move(list);
  put(&json, "nextToken", page.next_token);
  return json;
}

Json to_json(const Capacity& capacity) {
  Json json = Json::object();
  put(&json, "totalBytes", capacity.total_bytes);
  put(&json, "availableBytes", capacity.available_bytes);
  put(&json, "maximumVolumeBytes", capacity.maximum_volume_bytes);
  return json;
}

absl::StatusOr<StringMap> string_map_from_json(const Json& json) {
  if (!json.is_object()) return absl::InvalidArgumentError("must be an object of strings");
  StringMap map;
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) return absl::InvalidArgumentError(absl::StrCat("\"", key, "\" must be a string"));
    map[key] = value.get<std::string>();
  }
  return map;
}

absl::StatusOr<VolumeCapability> capability_from_json(const Json& json) {
  VolumeCapability capability;
  Reader reader(json, "capability");
  reader.only({"volumeMode", "accessMode", "fsType", "mountFlags"});
  std::string text;
  reader.text("volumeMode", &text);
  if (!text.empty()) reader.take("volumeMode", volume_mode_from_string(text), &capability.mode);
  text.clear();
  reader.text("accessMode", &text);
  if (!text.empty()) reader.take("accessMode", access_mode_from_string(text), &capability.access_mode);
  reader.text("fsType", &capability.fs_type);
  reader.list("mountFlags", &capability.mount_flags, string_from_json);
  COLLAGE_RETURN_IF_ERROR(reader.status());
  return capability;
}

absl::StatusOr<CreateRequest> create_request_from_json(const Json& json) {
  CreateRequest request;
  Reader reader(json, "create");
  reader.only({"name", "requiredBytes", "limitBytes", "capabilities", "parameters", "tags", "requisite",
               "preferred"});
  reader.text("name", &request.name);
  reader.integer("requiredBytes", &request.required_bytes);
  reader.integer("limitBytes", &request.limit_bytes);
  reader.list("capabilities", &request.capabilities, capability_from_json);
  reader.map("parameters", &request.parameters);
  reader.map("tags", &request.tags);
  reader.list("requisite", &request.requisite, string_map_from_json);
  reader.list("preferred", &request.preferred, string_map_from_json);
  COLLAGE_RETURN_IF_ERROR(reader.status());
  return request;
}

absl::StatusOr<Volume> volume_from_json(const Json& json) {
  Volume volume;
  Reader reader(json, "volume");
  reader.text("id", &volume.id);
  if (volume.id.empty()) reader.fail("id", "is missing");
  reader.text("name", &volume.name);
  reader.integer("capacityBytes", &volume.capacity_bytes);
  reader.map("context", &volume.context);
  reader.list("accessible", &volume.accessible, string_map_from_json);
  reader.map("tags", &volume.tags);
  reader.text("attachedTo", &volume.attached_to);
  reader.text("problem", &volume.problem);
  COLLAGE_RETURN_IF_ERROR(reader.status());
  return volume;
}

absl::StatusOr<VolumePage> volume_page_from_json(const Json& json) {
  VolumePage page;
  Reader reader(json, "page");
  reader.list("volumes", &page.volumes, volume_from_json);
  reader.text("nextToken", &page.next_token);
  COLLAGE_RETURN_IF_ERROR(reader.status());
  return page;
}

absl::StatusOr<Capacity> capacity_from_json(const Json& json) {
  Capacity capacity;
  Reader reader(json, "capacity");
  reader.integer("totalBytes", &capacity.total_bytes);
  reader.integer("availableBytes", &capacity.available_bytes);
  reader.integer("maximumVolumeBytes", &capacity.maximum_volume_bytes);
  COLLAGE_RETURN_IF_ERROR(reader.status());
  return capacity;
}

}  // namespace collage::drivers
