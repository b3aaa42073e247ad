#include "unit/testing/fake_selector.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"

namespace collage::testing {
namespace {

using base::Json;

std::string trimmed(const std::string& text) {
  return std::string(absl::StripAsciiWhitespace(text));
}

// Splits at commas that are not inside parentheses.
std::vector<std::string> requirements(const std::string& selector) {
  std::vector<std::string> parts;
  std::string part;
  int depth = 0;
  for (const char c : selector) {
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    if (c == ',' && depth == 0) {
      parts.push_back(trimmed(part));
      part.clear();
    } else {
      part += c;
    }
  }
  if (!trimmed(part).empty()) parts.push_back(trimmed(part));
  return parts;
}

std::optional<std::string> label(const Json& object, const std::string& key) {
  const Json* labels = base::find(object, "/metadata/labels");
  if (labels == nullptr || !labels->is_object() || !labels->contains(key)) return std::nullopt;
  const Json& value = (*labels)[key];
  return value.is_string() ? std::optional(value.get<std::string>()) : std::nullopt;
}

bool in_set(const std::optional<std::string>& value, const std::string& set) {
  const size_t open = set.find('('), close = set.rfind(')');
  if (!value || open == std::string::npos || close == std::string::npos) return false;
  const std::vector<std::string> values = absl::StrSplit(set.substr(open + 1, close - open - 1), ',');
  return std::any_of(values.begin(), values.end(),
                     [&](const std::string& each) { return trimmed(each) == *value; });
}

bool meets(const Json& object, const std::string& requirement) {
  if (const size_t at = requirement.find(" notin "); at != std::string::npos) {
    return !in_set(label(object, trimmed(requirement.substr(0, at))), requirement.substr(at));
  }
  if (const size_t at = requirement.find(" in "); at != std::string::npos) {
    return in_set(label(object, trimmed(requirement.substr(0, at))), requirement.substr(at));
  }
  if (const size_t at = requirement.find("!="); at != std::string::npos) {
    return label(object, trimmed(requirement.substr(0, at))) != trimmed(requirement.substr(at + 2));
  }
  if (const size_t at = requirement.find('='); at != std::string::npos) {
    const size_t value = requirement.find_first_not_of('=', at);
    return label(object, trimmed(requirement.substr(0, at))) ==
           (value == std::string::npos ? "" : trimmed(requirement.substr(value)));
  }
  if (requirement.starts_with('!')) return !label(object, trimmed(requirement.substr(1)));
  return label(object, requirement).has_value();
}

}  // namespace

bool matches_labels(const Json& object, const std::string& selector) {
  const std::vector<std::string> all = requirements(selector);
  return std::all_of(all.begin(), all.end(), [&](const std::string& each) { return meets(object, each); });
}

bool matches_fields(const Json& object, const std::string& selector) {
  const std::vector<std::string> all = requirements(selector);
  return std::all_of(all.begin(), all.end(), [&](const std::string& each) {
    const bool negative = each.find("!=") != std::string::npos;
    const size_t at = each.find(negative ? "!=" : "=");
    if (at == std::string::npos) return false;
    const size_t value = each.find_first_not_of("!=", at);
    std::string pointer = "/" + trimmed(each.substr(0, at));
    std::replace(pointer.begin(), pointer.end(), '.', '/');
    const bool equal =
        base::get_string(object, pointer) == (value == std::string::npos ? "" : trimmed(each.substr(value)));
    return equal != negative;
  });
}

}  // namespace collage::testing
