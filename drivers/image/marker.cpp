#include "drivers/image/marker.h"

#include <cctype>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "base/status.h"

namespace collage::drivers {

namespace {

std::string marker_path(const StoreDirectory& directory) {
  return absl::StrCat(directory.path(), "/", kMarkerFile);
}

bool is_id(const std::string& text) {
  if (text.empty() || text.size() > 64) return false;
  for (char c : text) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-') return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::string> read_marker(const StoreDirectory& directory) {
  const std::string path = marker_path(directory);
  auto text = directory.read(path);
  if (absl::IsNotFound(text.status())) return text.status();
  COLLAGE_RETURN_IF_ERROR(base::annotate(text.status(), directory.describe()));
  std::string id(absl::StripAsciiWhitespace(*text));
  if (!is_id(id)) {
    return absl::DataLossError(
        absl::StrCat(directory.describe(), ": the marker file ", path, " does not hold the share's id"));
  }
  return id;
}

absl::StatusOr<std::string> make_marker(const StoreDirectory& directory) {
  const std::string path = marker_path(directory);
  const std::string temporary = absl::StrCat(path, ".", base::random_hex(8));
  // A crash before the unlink leaves the temporary file; it is small, hidden, and nobody's marker.
  COLLAGE_RETURN_IF_ERROR(directory.write_new(temporary, base::random_uuid() + "\n"));
  absl::Status linked = directory.link(temporary, path);
  COLLAGE_RETURN_IF_ERROR(directory.unlink(temporary));
  if (!linked.ok() && !absl::IsAlreadyExists(linked)) return linked;
  COLLAGE_RETURN_IF_ERROR(directory.sync(directory.path()));
  return read_marker(directory);
}

}  // namespace collage::drivers
