#include "drivers/store/block.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace collage::drivers {

namespace {

constexpr size_t kLongestDirectory = 1024;

// "" when `path` is absolute and in its one normal form.
std::string problem_of(absl::string_view path) {
  if (path.empty() || path.front() != '/') return "must be an absolute path";
  if (path.size() > kLongestDirectory)
    return absl::StrCat("is longer than ", kLongestDirectory, " characters");
  if (path == "/") return "must not be the root directory";
  for (char c : path) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return "must not hold control characters";
  }
  for (absl::string_view part : absl::StrSplit(path.substr(1), '/')) {
    if (part.empty()) return "must not hold \"//\" nor end in \"/\"";
    if (part == "." || part == "..") return absl::StrCat("must not hold the part \"", part, "\"");
  }
  return "";
}

}  // namespace

absl::StatusOr<std::string> directory_of_block(const std::string& kind, const std::string& example,
                                               const base::Json& block) {
  const std::string spec = absl::StrCat("spec.", kind);
  const auto refuse = [&](absl::string_view field, absl::string_view problem) {
    return absl::InvalidArgumentError(absl::StrCat(spec, field, ": ", problem));
  };
  if (!block.is_object())
    return refuse("", absl::StrCat("must be an object, such as {directory: ", example, "}"));
  for (const auto& [key, value] : block.items()) {
    if (key != "directory") return refuse(absl::StrCat(".", key), "unknown field; the only one is directory");
  }
  const auto found = block.find("directory");
  if (found == block.end())
    return refuse(".directory", absl::StrCat("is required: an absolute path, such as ", example));
  if (!found->is_string()) return refuse(".directory", absl::StrCat("must be a string, such as ", example));
  const std::string directory = found->get<std::string>();
  const std::string problem = problem_of(directory);
  if (!problem.empty()) return refuse(".directory", absl::StrCat(problem, ", such as ", example));
  return directory;
}

}  // namespace collage::drivers
