#include "drivers/operation.h"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "drivers/codec.h"

namespace collage::drivers {

namespace {

using base::Context;
using base::Json;

constexpr std::array<std::pair<Verb, const char*>, 11> kVerbs = {{
    {Verb::kProbe, "probe"},
    {Verb::kCreate, "create"},
    {Verb::kRemove, "remove"},
    {Verb::kFind, "find"},
    {Verb::kInspect, "inspect"},
    {Verb::kList, "list"},
    {Verb::kAttach, "attach"},
    {Verb::kDetach, "detach"},
    {Verb::kFence, "fence"},
    {Verb::kCapacity, "capacity"},
    {Verb::kHolds, "holds"},
}};

absl::Status wrong_type(const char* key, const char* type) {
  return absl::InvalidArgumentError(absl::StrCat("arguments.", key, ": must be ", type));
}

// nullptr when the field is missing or null.
const Json* field(const Json& arguments, const char* key) {
  const auto found = arguments.find(key);
  return found == arguments.end() || found->is_null() ? nullptr : &*found;
}

absl::StatusOr<std::string> text(const Json& arguments, const char* key) {
  const Json* value = field(arguments, key);
  if (value == nullptr) return std::string();
  if (!value->is_string()) return wrong_type(key, "a string");
  return value->get<std::string>();
}

absl::StatusOr<std::string> required_text(const Json& arguments, const char* key) {
  COLLAGE_ASSIGN_OR_RETURN(std::string value, text(arguments, key));
  if (value.empty()) return absl::InvalidArgumentError(absl::StrCat("arguments.", key, ": is missing"));
  return value;
}

absl::StatusOr<bool> flag(const Json& arguments, const char* key) {
  const Json* value = field(arguments, key);
  if (value == nullptr) return false;
  if (!value->is_boolean()) return wrong_type(key, "a boolean");
  return value->get<bool>();
}

absl::StatusOr<StringMap> map(const Json& arguments, const char* key) {
  const Json* value = field(arguments, key);
  if (value == nullptr) return StringMap();
  auto result = string_map_from_json(*value);
  if (!result.ok()) return base::annotate(result.status(), absl::StrCat("arguments.", key));
  return result;
}

absl::StatusOr<Json> probe(const Context& context, Driver& driver, const Json& arguments) {
  Driver::ProbeOptions options;
  COLLAGE_ASSIGN_OR_RETURN(options.initialize, flag(arguments, "initialize"));
  COLLAGE_ASSIGN_OR_RETURN(options.expected_system_id, text(arguments, "expectedSystemID"));
  COLLAGE_ASSIGN_OR_RETURN(options.cluster.id, text(arguments, "clusterID"));
  COLLAGE_ASSIGN_OR_RETURN(options.cluster.uid, text(arguments, "clusterUID"));
  COLLAGE_ASSIGN_OR_RETURN(const ProbeResult result, driver.probe(context, options));
  Json json = Json::object();
  if (!result.system_id.empty()) json["systemID"] = result.system_id;
  if (!result.cluster_uids.empty()) json["clusterUIDs"] = result.cluster_uids;
  return json;
}

absl::StatusOr<Json> find(const Context& context, Driver& driver, const Json& arguments) {
  COLLAGE_ASSIGN_OR_RETURN(const std::string name, required_text(arguments, "name"));
  COLLAGE_ASSIGN_OR_RETURN(const std::optional<Volume> volume, driver.find(context, name));
  return volume.has_value() ? to_json(*volume) : Json(nullptr);
}

absl::StatusOr<Json> list(const Context& context, Driver& driver, const Json& arguments) {
  COLLAGE_ASSIGN_OR_RETURN(const std::string token, text(arguments, "token"));
  int max_entries = 0;
  if (const Json* value = field(arguments, "max"); value != nullptr) {
    if (!value->is_number_integer()) return wrong_type("max", "an integer");
    const int64_t number = value->get<int64_t>();
    if (number < 0 || number > 1'000'000) return wrong_type("max", "between 0 and 1000000");
    max_entries = static_cast<int>(number);
  }
  COLLAGE_ASSIGN_OR_RETURN(const VolumePage page, driver.list(context, token, max_entries));
  return to_json(page);
}

absl::StatusOr<Attacher*> attacher(Driver& driver) {
  if (driver.attacher() != nullptr) return driver.attacher();
  return absl::UnimplementedError(absl::StrCat("volumes of kind ", driver.info().kind, " are not attached"));
}

absl::StatusOr<Json> attach(const Context& context, Driver& driver, const Json& arguments) {
  COLLAGE_ASSIGN_OR_RETURN(Attacher* const part, attacher(driver));
  COLLAGE_ASSIGN_OR_RETURN(const std::string id, required_text(arguments, "id"));
  COLLAGE_ASSIGN_OR_RETURN(const std::string node, required_text(arguments, "nodeID"));
  COLLAGE_ASSIGN_OR_RETURN(const bool read_only, flag(arguments, "readOnly"));
  VolumeCapability capability;
  if (const Json* value = field(arguments, "capability"); value != nullptr) {
    COLLAGE_ASSIGN_OR_RETURN(capability, capability_from_json(*value));
  }
  COLLAGE_ASSIGN_OR_RETURN(const StringMap publish_context,
                           part->attach(context, id, node, capability, read_only));
  Json json = Json::object();
  json["publishContext"] = to_json(publish_context);
  return json;
}

absl::StatusOr<Json> detach(const Context& context, Driver& driver, const Json& arguments) {
  COLLAGE_ASSIGN_OR_RETURN(Attacher* const part, attacher(driver));
  COLLAGE_ASSIGN_OR_RETURN(const std::string id, required_text(arguments, "id"));
  COLLAGE_ASSIGN_OR_RETURN(const std::string node, text(arguments, "nodeID"));
  COLLAGE_RETURN_IF_ERROR(part->detach(context, id, node));
  return Json::object();
}

absl::StatusOr<Json> fence(const Context& context, Driver& driver, const Json& arguments) {
  COLLAGE_ASSIGN_OR_RETURN(Attacher* const part, attacher(driver));
  COLLAGE_ASSIGN_OR_RETURN(const std::string id, required_text(arguments, "id"));
  COLLAGE_ASSIGN_OR_RETURN(const std::string node, required_text(arguments, "nodeID"));
  COLLAGE_RETURN_IF_ERROR(part->fence(context, id, node));
  return Json::object();
}

absl::StatusOr<Json> capacity(const Context& context, Driver& driver, const Json& arguments) {
  CapacityReporter* const part = driver.capacity_reporter();
  if (part == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("kind ", driver.info().kind, " does not report its capacity"));
  }
  COLLAGE_ASSIGN_OR_RETURN(const StringMap parameters, map(arguments, "parameters"));
  COLLAGE_ASSIGN_OR_RETURN(const Topology where, map(arguments, "where"));
  COLLAGE_ASSIGN_OR_RETURN(const Capacity result, part->capacity(context, parameters, where));
  return to_json(result);
}

}  // namespace

std::string to_string(Verb verb) {
  for (const auto& [known, name] : kVerbs) {
    if (known == verb) return name;
  }
  return absl::StrCat("verb-", static_cast<int>(verb));
}

absl::StatusOr<Verb> verb_from_string(const std::string& text) {
  for (const auto& [verb, name] : kVerbs) {
    if (text == name) return verb;
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown verb \"", text, "\""));
}

absl::StatusOr<Json> carry_out(const Context& context, Driver& driver, Verb verb, const Json& arguments) {
  if (!arguments.is_object()) return absl::InvalidArgumentError("arguments: must be an object");
  switch (verb) {
    case Verb::kProbe:
      return probe(context, driver, arguments);
    case Verb::kCreate: {
      COLLAGE_ASSIGN_OR_RETURN(const CreateRequest request, create_request_from_json(arguments));
      COLLAGE_ASSIGN_OR_RETURN(const Volume volume, driver.create(context, request));
      return to_json(volume);
    }
    case Verb::kRemove: {
      COLLAGE_ASSIGN_OR_RETURN(const std::string id, required_text(arguments, "id"));
      COLLAGE_RETURN_IF_ERROR(driver.remove(context, id));
      return Json::object();
    }
    case Verb::kFind:
      return find(context, driver, arguments);
    case Verb::kInspect: {
      COLLAGE_ASSIGN_OR_RETURN(const std::string id, required_text(arguments, "id"));
      COLLAGE_ASSIGN_OR_RETURN(const Volume volume, driver.inspect(context, id));
      return to_json(volume);
    }
    case Verb::kList:
      return list(context, driver, arguments);
    case Verb::kAttach:
      return attach(context, driver, arguments);
    case Verb::kDetach:
      return detach(context, driver, arguments);
    case Verb::kFence:
      return fence(context, driver, arguments);
    case Verb::kCapacity:
      return capacity(context, driver, arguments);
    case Verb::kHolds:
      return absl::UnimplementedError("what a node holds is no question to a driver");
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown verb ", static_cast<int>(verb)));
}

}  // namespace collage::drivers
