#include "operator/kube/objects_detail.h"

#include <nlohmann/json.hpp>

#include "base/quantity.h"

namespace collage::kube::detail {

Interned interned(const base::Json& object, std::string_view pointer, std::string_view otherwise) {
  const base::Json* value = base::find(object, pointer);
  if (value == nullptr || !value->is_string()) return Interned(otherwise);
  return Interned(std::string_view(value->get_ref<const std::string&>()));
}

std::vector<Interned> interned_list(const base::Json& object, std::string_view pointer) {
  std::vector<Interned> result;
  const base::Json* values = base::find(object, pointer);
  if (values == nullptr || !values->is_array()) return result;
  result.reserve(values->size());
  for (const base::Json& value : *values) {
    if (value.is_string()) result.emplace_back(std::string_view(value.get_ref<const std::string&>()));
  }
  return result;
}

std::vector<std::string> string_list(const base::Json& object, std::string_view pointer) {
  std::vector<std::string> result;
  const base::Json* values = base::find(object, pointer);
  if (values == nullptr || !values->is_array()) return result;
  for (const base::Json& value : *values) {
    if (value.is_string()) result.push_back(value.get_ref<const std::string&>());
  }
  return result;
}

std::map<std::string, std::string> string_map(const base::Json& object, std::string_view pointer) {
  std::map<std::string, std::string> result;
  const base::Json* values = base::find(object, pointer);
  if (values == nullptr || !values->is_object()) return result;
  for (const auto& [key, value] : values->items()) {
    if (value.is_string()) result.emplace(key, value.get_ref<const std::string&>());
  }
  return result;
}

int64_t quantity(const base::Json& object, std::string_view pointer, int64_t otherwise) {
  const base::Json* value = base::find(object, pointer);
  if (value == nullptr || value->is_null()) return otherwise;
  if (!value->is_string() && !value->is_number()) return -1;
  const auto bytes = base::parse_quantity(value->is_string() ? value->get_ref<const std::string&>()
                                                             : base::dump_json(*value));
  return bytes.ok() ? *bytes : -1;
}

}  // namespace collage::kube::detail
