#include "operator/engine/operation_text.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "base/compress.h"

namespace collage::engine {
namespace {

using base::Json;

constexpr std::string_view kPacked = "zlib:";
constexpr size_t kLegible = 2 << 10;   // bytes in all that are left as they are
constexpr size_t kPackOf = 128 << 10;  // bytes that become one text: in base64 it is shorter than the longest
constexpr size_t kMaxUnpacked = 2 * kPackOf;  // of one text, by whoever wrote it

std::string packed(std::string_view array) {
  return std::string(kPacked) + absl::Base64Escape(base::compress(array));
}

// The JSON of a text: an object or, packed, an array of them.
absl::StatusOr<Json> unpacked(std::string_view text) {
  if (!text.starts_with(kPacked)) return base::parse_json(text);
  text.remove_prefix(kPacked.size());
  std::string bytes;
  if (!absl::Base64Unescape({text.data(), text.size()}, &bytes))
    return absl::InvalidArgumentError("not base64");
  const absl::StatusOr<std::string> array = base::decompress(bytes, kMaxUnpacked);
  return array.ok() ? base::parse_json(*array) : array.status();
}

}  // namespace

Json list_of(const std::vector<std::string>& objects) {
  size_t bytes = 0;
  for (const std::string& object : objects) bytes += object.size();
  Json list = Json::array();
  if (bytes <= kLegible) {
    for (const std::string& object : objects) list.push_back(object);
    return list;
  }
  std::string array;
  const auto finish = [&] {
    if (!array.empty()) list.push_back(packed(array + "]"));
    array.clear();
  };
  for (const std::string& object : objects) {
    if (array.size() + object.size() + 2 > kPackOf) finish();
    if (object.size() + 2 > kPackOf) {
      list.push_back(object);
      continue;
    }
    array += array.empty() ? '[' : ',';
    array += object;
  }
  finish();
  return list;
}

std::vector<Json> operations_in(const Json& storage_node, std::string_view list) {
  std::vector<Json> result;
  const Json* const texts = base::find(storage_node, list);
  if (texts == nullptr || !texts->is_array()) return result;
  result.reserve(texts->size());
  for (const Json& text : *texts) {
    if (!text.is_string()) continue;
    absl::StatusOr<Json> parsed = unpacked(text.get_ref<const std::string&>());
    if (!parsed.ok()) continue;
    if (parsed->is_object()) result.push_back(*std::move(parsed));
    if (!parsed->is_array()) continue;
    for (Json& object : *parsed) {
      if (object.is_object()) result.push_back(std::move(object));
    }
  }
  return result;
}

bool same_list(const Json& one, const Json& other, std::string_view list) {
  const Json* const a = base::find(one, list);
  const Json* const b = base::find(other, list);
  return a == nullptr || b == nullptr ? a == b : *a == *b;
}

}  // namespace collage::engine
