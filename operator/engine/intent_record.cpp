#include "operator/engine/intent_record.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status.h"
#include "operator/engine/intents.h"

namespace collage::engine {
namespace {

using base::Json;

static_assert(kMaxIntentBytes == Intents::kMaxValueBytes);

constexpr std::array<std::pair<char, std::string_view>, 4> kModeLetters = {
    {{'W', "ReadWriteOnce"}, {'R', "ReadOnlyMany"}, {'X', "ReadWriteMany"}, {'P', "ReadWriteOncePod"}}};

absl::StatusOr<std::string> letters_of(const std::vector<std::string>& modes) {
  std::string letters;
  for (const std::string& mode : modes) {
    const auto found = std::find_if(kModeLetters.begin(), kModeLetters.end(),
                                    [&](const auto& entry) { return entry.second == mode; });
    if (found == kModeLetters.end())
      return absl::InvalidArgumentError(absl::StrCat("spec.accessModes: ", mode, " is not known"));
    letters += found->first;
  }
  return letters;
}

absl::StatusOr<std::vector<std::string>> modes_of(const std::string& letters) {
  std::vector<std::string> modes;
  for (char letter : letters) {
    const auto found = std::find_if(kModeLetters.begin(), kModeLetters.end(),
                                    [&](const auto& entry) { return entry.first == letter; });
    if (found == kModeLetters.end())
      return absl::InvalidArgumentError(absl::StrCat("intent: access mode \"", letters, "\" is not known"));
    modes.emplace_back(found->second);
  }
  return modes;
}

constexpr std::array<size_t, 4> kDashes = {8, 13, 18, 23};

bool is_dash_place(size_t i) {
  return std::find(kDashes.begin(), kDashes.end(), i) != kDashes.end();
}

// A canonical UUID loses its four dashes; any other text stays as it is. A text that already looks so is kept
// apart by '='.
std::string pack_uid(std::string_view uid) {
  std::string packed;
  bool canonical = uid.size() == 36;
  for (size_t i = 0; canonical && i < uid.size(); ++i) {
    canonical = is_dash_place(i) ? uid[i] == '-' : absl::ascii_isxdigit(uid[i]);
    if (canonical && !is_dash_place(i)) packed += uid[i];
  }
  if (canonical) return packed;
  return uid.empty() ? "" : "=" + std::string(uid);
}

absl::StatusOr<std::string> unpack_uid(std::string_view packed) {
  if (packed.empty()) return "";
  if (packed.front() == '=') return std::string(packed.substr(1));
  if (packed.size() != 32) return absl::InvalidArgumentError("intent: \"scu\" is no UID");
  std::string uid;
  for (char c : packed) {
    if (is_dash_place(uid.size())) uid += '-';
    uid += c;
  }
  return uid;
}

// The node that a segment of a kind whose volumes live on one node names; "" for any other segment.
std::string node_of(const drivers::Topology& segment) {
  if (segment.size() != 1 || !absl::EndsWith(segment.begin()->first, "/node")) return "";
  return segment.begin()->second;
}

}  // namespace

absl::StatusOr<std::string> encode_intent(const IntentRecord& record) {
  Json json = {
      {"ns", record.claim.name_space}, {"pvc", record.claim.name}, {"b", record.claim.requested_bytes}};
  COLLAGE_ASSIGN_OR_RETURN(const std::string letters, letters_of(record.claim.access_modes));
  if (letters != "W") json["m"] = letters;
  if (record.claim.limit_bytes > 0) json["max"] = record.claim.limit_bytes;
  if (record.claim.block) json["blk"] = 1;
  if (!record.class_name.empty()) json["sc"] = record.class_name;
  if (!record.class_uid.empty()) json["scu"] = pack_uid(record.class_uid);
  if (!record.segment.empty()) json["at"] = record.segment;
  if (record.node != node_of(record.segment)) json["node"] = record.node;

  std::string text = base::dump_json(json);
  if (text.size() > kMaxIntentBytes && !record.class_uid.empty()) {
    json.erase("sc");
    text = base::dump_json(json);
  }
  if (text.size() > kMaxIntentBytes && !record.segment.empty()) {
    json.erase("node");
    text = base::dump_json(json);
  }
  if (text.size() > kMaxIntentBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "claim ", record.claim.name_space, "/", record.claim.name, ": the note of its create needs ",
        text.size(), " bytes, ", kMaxIntentBytes, " are allowed: use shorter names, or fewer topology keys (",
        to_string(record.segment), ")"));
  }
  return text;
}

absl::StatusOr<IntentRecord> decode_intent(std::string_view claim_uid, std::string_view text) {
  COLLAGE_ASSIGN_OR_RETURN(const Json json, base::parse_json(text));
  if (!json.is_object()) return absl::InvalidArgumentError("intent: must be a JSON object");
  IntentRecord record;
  record.claim.uid = claim_uid;
  record.claim.name_space = base::get_string(json, "/ns");
  record.claim.name = base::get_string(json, "/pvc");
  record.claim.requested_bytes = base::get_int(json, "/b");
  record.claim.limit_bytes = base::get_int(json, "/max");
  record.claim.block = base::get_int(json, "/blk") != 0;
  if (record.claim.name_space.empty() || record.claim.name.empty() || record.claim.requested_bytes <= 0) {
    return absl::InvalidArgumentError("intent: \"ns\", \"pvc\" and \"b\" are needed");
  }
  COLLAGE_ASSIGN_OR_RETURN(record.claim.access_modes, modes_of(base::get_string(json, "/m", "W")));
  record.class_name = base::get_string(json, "/sc");
  COLLAGE_ASSIGN_OR_RETURN(record.class_uid, unpack_uid(base::get_string(json, "/scu")));
  if (const Json* segment = base::find(json, "/at"); segment != nullptr && segment->is_object()) {
    for (const auto& [key, value] : segment->items()) {
      if (!value.is_string()) return absl::InvalidArgumentError("intent: \"at\" must map text to text");
      record.segment.emplace(key, value.get<std::string>());
    }
  }
  record.node = base::get_string(json, "/node", node_of(record.segment));
  return record;
}

TopologyRequirement topology_of(const IntentRecord& record) {
  if (record.segment.empty()) return {};
  return {{record.segment}, {record.segment}};
}

}  // namespace collage::engine
