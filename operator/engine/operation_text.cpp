#include "operator/engine/operation_text.h"

#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "base/compress.h"
#include "base/log.h"
#include "base/strings.h"

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

// An object or, packed, an array of them.
absl::StatusOr<Json> parsed(std::string_view text) {
  absl::StatusOr<Json> value = base::parse_json(text);
  if (value.ok() && !value->is_object() && !value->is_array())
    return absl::InvalidArgumentError("neither an object nor an array of them");
  return value;
}

absl::StatusOr<Json> unpacked(std::string_view text) {
  if (!text.starts_with(kPacked)) return parsed(text);
  text.remove_prefix(kPacked.size());
  std::string bytes;
  if (!absl::Base64Unescape({text.data(), text.size()}, &bytes))
    return absl::InvalidArgumentError("not base64");
  const absl::StatusOr<std::string> array = base::decompress(bytes, kMaxUnpacked);
  return array.ok() ? parsed(*array) : array.status();
}

// A list is read again with each of its changes, and what cannot be read may stay in it for long: each text
// is told of once (again after kMost others).
bool is_news(const std::string& node, std::string_view list, std::string_view text) {
  constexpr size_t kMost = 1000;
  static std::mutex mutex;
  static std::set<size_t> told;
  const size_t hash = std::hash<std::string>()(base::cat(node, " ", list, " ", text));
  std::lock_guard lock(mutex);
  if (told.size() >= kMost) told.clear();
  return told.insert(hash).second;
}

void tell(const Json& storage_node, std::string_view list, const Json& entry, const absl::Status& why) {
  const std::string node = base::get_string(storage_node, "/metadata/name");
  if (!is_news(node, list, base::dump_json(entry))) return;
  base::log::warning(base::Context(), "an entry of a StorageNode cannot be read and is left out",
                     {{"node", node}, {"list", list}, {"error", why}});
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
    absl::StatusOr<Json> objects = text.is_string() ? unpacked(text.get_ref<const std::string&>())
                                                    : absl::InvalidArgumentError("not a text");
    if (!objects.ok()) {
      tell(storage_node, list, text, objects.status());
      continue;
    }
    if (objects->is_object()) {
      result.push_back(*std::move(objects));
      continue;
    }
    bool all = true;
    for (Json& object : *objects) {
      all = all && object.is_object();
      if (object.is_object()) result.push_back(std::move(object));
    }
    if (!all) tell(storage_node, list, text, absl::InvalidArgumentError("an array of more than objects"));
  }
  return result;
}

bool same_list(const Json& one, const Json& other, std::string_view list) {
  const Json* const a = base::find(one, list);
  const Json* const b = base::find(other, list);
  return a == nullptr || b == nullptr ? a == b : *a == *b;
}

}  // namespace collage::engine
