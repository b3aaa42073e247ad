#include "operator/engine/spec_reader.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/quantity.h"
#include "operator/engine/names.h"

namespace collage::engine {
namespace {

using base::Json;

std::string path_of(absl::string_view path, absl::string_view field) {
  return path.empty() ? std::string(field) : absl::StrCat(path, ".", field);
}

// Hours, minutes, seconds, each at most once and in this order; -1 when it is not of that form.
int64_t parse_duration_seconds(absl::string_view text) {
  constexpr absl::string_view kUnits = "hms";
  constexpr int64_t kSeconds[] = {3600, 60, 1};
  int64_t total = 0;
  size_t unit = 0;
  while (!text.empty()) {
    size_t digits = 0;
    int64_t number = 0;
    while (digits < text.size() && absl::ascii_isdigit(text[digits]))
      number = number * 10 + (text[digits++] - '0');
    if (digits == 0 || digits > 6 || digits == text.size()) return -1;
    const size_t found = kUnits.find(text[digits], unit);
    if (found == absl::string_view::npos) return -1;
    total += number * kSeconds[found];
    unit = found + 1;
    text.remove_prefix(digits + 1);
  }
  return total;
}

}  // namespace

const Json* field_of(const Json& object, absl::string_view field) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(std::string(field));
  return found == object.end() ? nullptr : &*found;
}

void SpecReader::problem(absl::string_view path, absl::string_view text) {
  problems_.push_back(absl::StrCat(path, ": ", text));
}

absl::Status SpecReader::status() const {
  return problems_.empty() ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrJoin(problems_, "; "));
}

bool SpecReader::is_object(const Json& value, absl::string_view path, const std::vector<std::string>& known) {
  if (!value.is_object()) {
    problem(path, "must be an object");
    return false;
  }
  for (const auto& [key, unused] : value.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      problem(path_of(path, key),
              absl::StrCat("is not known: correct or remove it; known here: ", absl::StrJoin(known, ", ")));
    }
  }
  return true;
}

std::vector<const Json*> SpecReader::elements(const Json& value, absl::string_view path, size_t most) {
  std::vector<const Json*> result;
  if (!value.is_array()) {
    problem(path, "must be a list");
  } else if (value.size() > most) {
    problem(path, absl::StrCat("must have at most ", most, " entries, has ", value.size()));
  } else {
    for (const Json& element : value) result.push_back(&element);
  }
  return result;
}

void SpecReader::read(const Json& object, absl::string_view path, absl::string_view field,
                      std::string& value) {
  const Json* found = field_of(object, field);
  if (found == nullptr) return;
  if (!found->is_string()) return problem(path_of(path, field), "must be text: put it in quotes");
  value = found->get<std::string>();
}

void SpecReader::read(const Json& object, absl::string_view path, absl::string_view field, bool& value) {
  const Json* found = field_of(object, field);
  if (found == nullptr) return;
  if (!found->is_boolean()) return problem(path_of(path, field), "must be true or false, without quotes");
  value = found->get<bool>();
}

void SpecReader::read_one_of(const Json& object, absl::string_view path, absl::string_view field,
                             std::initializer_list<absl::string_view> allowed, std::string& value) {
  if (field_of(object, field) == nullptr) return;
  std::string text;
  read(object, path, field, text);
  if (std::find(allowed.begin(), allowed.end(), text) == allowed.end()) {
    return problem(path_of(path, field),
                   absl::StrCat("must be one of ", absl::StrJoin(allowed, ", "), "; \"", text, "\" is not"));
  }
  value = text;
}

void SpecReader::read_name(const Json& object, absl::string_view path, absl::string_view field,
                           std::string& value) {
  const Json* found = field_of(object, field);
  if (found == nullptr) return;
  if (!found->is_string() || !is_dns_subdomain(found->get<std::string>())) {
    return problem(
        path_of(path, field),
        absl::StrCat("must be a name of at most 253 lower case letters, digits, '-' and '.', such as fast; ",
                     base::dump_json(*found), " is not"));
  }
  value = found->get<std::string>();
}

void SpecReader::read_positive(const Json& object, absl::string_view path, absl::string_view field,
                               int64_t& value) {
  const Json* found = field_of(object, field);
  if (found == nullptr) return;
  const bool fits =
      found->is_number_integer() && (!found->is_number_unsigned() || found->get<uint64_t>() <= INT64_MAX);
  if (!fits || found->get<int64_t>() < 1) {
    return problem(path_of(path, field),
                   "must be a whole number of at least 1, without quotes; leave it out for no limit");
  }
  value = found->get<int64_t>();
}

void SpecReader::read_bytes(const Json& object, absl::string_view path, absl::string_view field,
                            int64_t& value) {
  const Json* found = field_of(object, field);
  if (found == nullptr) return;
  std::string text;
  if (found->is_string()) text = found->get<std::string>();
  if (found->is_number_integer()) text = base::dump_json(*found);
  const absl::StatusOr<int64_t> bytes = base::parse_quantity(text);
  if (!bytes.ok() || *bytes < 1 || *bytes == std::numeric_limits<int64_t>::max()) {
    return problem(path_of(path, field), absl::StrCat("must be a quantity greater than zero and less than "
                                                      "8Ei, such as 10Gi; leave it out for no limit; ",
                                                      base::dump_json(*found), " is not"));
  }
  value = *bytes;
}

void SpecReader::read_duration(const Json& object, absl::string_view path, absl::string_view field,
                               std::chrono::seconds& value) {
  const Json* found = field_of(object, field);
  if (found == nullptr) return;
  const int64_t seconds = found->is_string() ? parse_duration_seconds(found->get<std::string>()) : -1;
  if (seconds <= 0) {
    return problem(
        path_of(path, field),
        absl::StrCat(
            "must be a duration greater than zero in hours, minutes and seconds, such as 168h or 1h30m; ",
            base::dump_json(*found), " is not"));
  }
  value = std::chrono::seconds(seconds);
}

void SpecReader::read_strings(const Json& object, absl::string_view path, absl::string_view field,
                              size_t most, std::vector<std::string>& value) {
  const Json* found = field_of(object, field);
  if (found == nullptr) return;
  const std::string where = path_of(path, field);
  value.clear();
  for (const Json* element : elements(*found, where, most)) {
    if (!element->is_string() || element->get<std::string>().empty()) {
      problem(absl::StrCat(where, "[", value.size(), "]"), "must be text that is not empty");
    }
    value.push_back(element->is_string() ? element->get<std::string>() : "");
  }
}

void SpecReader::read_string_map(const Json& object, absl::string_view path, absl::string_view field,
                                 size_t most, std::map<std::string, std::string>& value) {
  const Json* found = field_of(object, field);
  if (found == nullptr) return;
  const std::string where = path_of(path, field);
  if (!found->is_object()) return problem(where, "must map names to text");
  if (found->size() > most)
    return problem(where, absl::StrCat("must have at most ", most, " entries, has ", found->size()));
  for (const auto& [key, element] : found->items()) {
    if (!element.is_string()) {
      problem(path_of(where, key), "must be text: put it in quotes");
      continue;
    }
    value[key] = element.get<std::string>();
  }
}

}  // namespace collage::engine
