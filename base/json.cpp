#include "base/json.h"

#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "base/strings.h"

namespace collage::base {
namespace {

constexpr int kMaxDepth = 200;

// Where the nesting first goes beyond the limit, or npos. Looked at before the parser runs, since values are
// destroyed, copied and printed recursively.
size_t find_too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
      continue;
    }
    if (c == '"') in_string = true;
    if ((c == '[' || c == '{') && ++depth > kMaxDepth) return i;
    if (c == ']' || c == '}') --depth;
  }
  return std::string_view::npos;
}

// The message of a parse_error without the library's own prefix "[json.exception.parse_error.101] " and
// without what it quotes: "; last read: '<token>'".
std::string_view reason_of(std::string_view message) {
  if (const size_t end = message.find("] "); end != std::string_view::npos) message.remove_prefix(end + 2);
  return message.substr(0, message.find("; last read"));
}

std::string unescape(std::string_view token) {
  std::string key;
  key.reserve(token.size());
  for (size_t i = 0; i < token.size(); ++i) {
    if (token[i] == '~' && i + 1 < token.size() && (token[i + 1] == '0' || token[i + 1] == '1')) {
      key += token[++i] == '0' ? '~' : '/';
    } else {
      key += token[i];
    }
  }
  return key;
}

const Json* child(const Json& value, std::string_view token) {
  if (value.is_object()) {
    const auto found =
        value.find(token.find('~') == std::string_view::npos ? std::string(token) : unescape(token));
    return found == value.end() ? nullptr : &*found;
  }
  if (value.is_array()) {
    uint32_t index = 0;
    if (!absl::SimpleAtoi(absl_view(token), &index) || index >= value.size()) return nullptr;
    return &value[index];
  }
  return nullptr;
}

}  // namespace

std::string not_json(const std::exception& error) {
  if (const auto* syntax = dynamic_cast<const Json::parse_error*>(&error); syntax != nullptr)
    return cat("not JSON at byte ", syntax->byte, ": ", reason_of(syntax->what()));
  // The others quote the input in ways of their own.
  const auto* known = dynamic_cast<const Json::exception*>(&error);
  constexpr int kNumberOverflow = 406;
  if (known == nullptr) return "not JSON";
  if (known->id == kNumberOverflow) return "not JSON: a number is too large";
  return cat("not JSON: error ", known->id, " of the parser");
}

absl::StatusOr<Json> parse_json(std::string_view text) {
  if (const size_t at = find_too_deep(text); at != std::string_view::npos) {
    return absl::InvalidArgumentError(cat("JSON is nested deeper than ", kMaxDepth, " at byte ", at));
  }
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(not_json(error));
  }
}

std::string dump_json(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string dump_json_pretty(const Json& value) {
  return value.dump(2, ' ', false, Json::error_handler_t::replace);
}

const Json* find(const Json& value, std::string_view pointer) {
  const Json* at = &value;
  while (!pointer.empty()) {
    if (pointer.front() != '/') return nullptr;
    pointer.remove_prefix(1);
    const size_t end = std::min(pointer.find('/'), pointer.size());
    at = child(*at, pointer.substr(0, end));
    if (at == nullptr) return nullptr;
    pointer.remove_prefix(end);
  }
  return at;
}

std::string get_string(const Json& value, std::string_view pointer, std::string_view otherwise) {
  const Json* found = find(value, pointer);
  if (found == nullptr || !found->is_string()) return std::string(otherwise);
  return found->get_ref<const std::string&>();
}

int64_t get_int(const Json& value, std::string_view pointer, int64_t otherwise) {
  const Json* found = find(value, pointer);
  if (found == nullptr || !found->is_number_integer()) return otherwise;
  if (found->is_number_unsigned() && found->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    return otherwise;
  return found->get<int64_t>();
}

bool get_bool(const Json& value, std::string_view pointer, bool otherwise) {
  const Json* found = find(value, pointer);
  return found != nullptr && found->is_boolean() ? found->get<bool>() : otherwise;
}

}  // namespace collage::base
