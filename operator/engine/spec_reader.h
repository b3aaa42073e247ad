#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/json.h"

namespace collage::engine {

// Reads the fields of an object that a person wrote, and remembers every problem with its path, so that all
// are told at once. A field that is missing leaves the value as it was: its default. Not thread safe.
class SpecReader {
 public:
  // "path: text".
  void problem(absl::string_view path, absl::string_view text);
  void problem(absl::string_view whole) { problems_.emplace_back(whole); }
  // OK, or INVALID_ARGUMENT with all problems.
  absl::Status status() const;

  // False, and a problem, when it is not an object. Every field that is not in `known` is a problem.
  bool is_object(const base::Json& value, absl::string_view path, const std::vector<std::string>& known);
  // Elements of a list; empty, and a problem, when it is not a list or longer than `most`.
  std::vector<const base::Json*> elements(const base::Json& value, absl::string_view path, size_t most);

  void read(const base::Json& object, absl::string_view path, absl::string_view field, std::string& value);
  void read(const base::Json& object, absl::string_view path, absl::string_view field, bool& value);
  void read_one_of(const base::Json& object, absl::string_view path, absl::string_view field,
                   std::initializer_list<absl::string_view> allowed, std::string& value);
  // The name of an object in Kubernetes (a DNS-1123 subdomain).
  void read_name(const base::Json& object, absl::string_view path, absl::string_view field,
                 std::string& value);
  void read_positive(const base::Json& object, absl::string_view path, absl::string_view field,
                     int64_t& value);
  // A positive quantity, as text ("10Gi") or a whole number.
  void read_bytes(const base::Json& object, absl::string_view path, absl::string_view field, int64_t& value);
  // "168h", "1h30m", "45s"; positive.
  void read_duration(const base::Json& object, absl::string_view path, absl::string_view field,
                     std::chrono::seconds& value);
  void read_strings(const base::Json& object, absl::string_view path, absl::string_view field, size_t most,
                    std::vector<std::string>& value);
  void read_string_map(const base::Json& object, absl::string_view path, absl::string_view field, size_t most,
                       std::map<std::string, std::string>& value);

 private:
  std::vector<std::string> problems_;
};

// nullptr when the object has no such field.
const base::Json* field_of(const base::Json& object, absl::string_view field);

}  // namespace collage::engine
