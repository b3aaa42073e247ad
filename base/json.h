#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// The one place that parses and prints JSON. Headers see the forward declaration only; a .cpp that looks
// inside a value includes <nlohmann/json.hpp>. Exceptions of the library never leave base/json.cpp: read
// fields with the functions below, which answer with a default where a field is missing or of another type.
namespace collage::base {

using Json = nlohmann::json;

// INVALID_ARGUMENT with the byte position when text is not JSON, or is nested deeper than 200. The message
// holds nothing of the text, which may be a Secret.
absl::StatusOr<Json> parse_json(std::string_view text);
// Compact; bytes that are not UTF-8 are replaced.
std::string dump_json(const Json& value);
std::string dump_json_pretty(const Json& value);
// "not JSON at byte 7: ..." for an exception of the library's parser, for who calls that itself: what()
// quotes the text.
std::string not_json(const std::exception& error);

// Fields by JSON pointer without escapes: get_string(pvc, "/metadata/name"). A key that contains '/' or '~'
// is written as in RFC 6901 ("~1", "~0"). Never throw.
const Json* find(const Json& value, std::string_view pointer);  // nullptr when missing
std::string get_string(const Json& value, std::string_view pointer, std::string_view otherwise = "");
int64_t get_int(const Json& value, std::string_view pointer, int64_t otherwise = 0);
bool get_bool(const Json& value, std::string_view pointer, bool otherwise = false);

}  // namespace collage::base
