#include "operator/engine/operation_text.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace collage::engine {

using base::Json;

std::vector<Json> operations_in(const Json& storage_node, std::string_view list) {
  std::vector<Json> result;
  const Json* const texts = base::find(storage_node, list);
  if (texts == nullptr || !texts->is_array()) return result;
  result.reserve(texts->size());
  for (const Json& text : *texts) {
    if (!text.is_string()) continue;
    absl::StatusOr<Json> parsed = base::parse_json(text.get_ref<const std::string&>());
    if (parsed.ok() && parsed->is_object()) result.push_back(*std::move(parsed));
  }
  return result;
}

}  // namespace collage::engine
