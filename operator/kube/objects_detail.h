#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "operator/kube/interned.h"

// Reading fields of objects that may be of any shape; shared by the parsers in objects_*.cpp only. Never
// throws.
namespace collage::kube::detail {

Interned interned(const base::Json& object, std::string_view pointer, std::string_view otherwise = "");
// The strings of an array; elements of other types are left out.
std::vector<Interned> interned_list(const base::Json& object, std::string_view pointer);
std::vector<std::string> string_list(const base::Json& object, std::string_view pointer);
// The string values of an object; others are left out.
std::map<std::string, std::string> string_map(const base::Json& object, std::string_view pointer);
// A quantity, string or number; `otherwise` when it is missing, -1 when it is none.
int64_t quantity(const base::Json& object, std::string_view pointer, int64_t otherwise);

}  // namespace collage::kube::detail
