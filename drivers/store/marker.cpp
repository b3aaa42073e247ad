#include "drivers/store/marker.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
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
        absl::StrCat(directory.describe(), ": the marker file ", path, " does not hold an id"));
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

absl::StatusOr<std::string> Marker::verify(StoreDirectory::Need need, const std::string& expected_now) {
  COLLAGE_RETURN_IF_ERROR(directory_.check(need));
  auto found = read_marker(directory_);
  if (!found.ok() && !absl::IsNotFound(found.status())) return found.status();
  std::lock_guard guard(mutex_);
  const std::string& expected = expected_now.empty() ? expected_ : expected_now;
  if (!found.ok()) return mismatch("it has no marker file", expected);
  if (!expected.empty() && *found != expected)
    return mismatch(absl::StrCat("its marker says ", *found), expected);
  expected_ = *found;
  return *found;
}

std::string Marker::expected() const {
  std::lock_guard guard(mutex_);
  return expected_;
}

absl::Status Marker::mismatch(absl::string_view found, const std::string& expected) const {
  const std::string wanted = expected.empty() ? "" : absl::StrCat(", ", expected, " is expected");
  return absl::FailedPreconditionError(absl::StrCat(directory_.describe(), " is not the ", words_.storage,
                                                    " of backend ", backend_, ": ", found, " (", kMarkerFile,
                                                    wanted, "); ", words_.remedy));
}

absl::StatusOr<std::vector<std::string>> register_cluster(const StoreDirectory& directory,
                                                          const ClusterIdentity& cluster) {
  if (!is_id(cluster.uid)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cluster UID \"", cluster.uid, "\": must be at most 64 letters, digits and '-'"));
  }
  // The id may be any text: its digest makes the name, the link says it in full.
  const std::string prefix = absl::StrCat(kClusterPrefix, base::sha256_hex(cluster.id).substr(0, 16), ".");
  const std::string mine = absl::StrCat(prefix, cluster.uid);
  COLLAGE_RETURN_IF_ERROR(directory.refresh(directory.path()));
  COLLAGE_ASSIGN_OR_RETURN(std::vector<std::string> names, directory.list(directory.path()));
  if (!std::binary_search(names.begin(), names.end(), mine)) {
    absl::Status written = directory.write_note(absl::StrCat(directory.path(), "/", mine), cluster.id);
    if (!written.ok() && !absl::IsAlreadyExists(written)) return written;
    COLLAGE_RETURN_IF_ERROR(directory.sync(directory.path()));
    // Looked at after our own is there: of two that come at the same time, at least one sees both.
    COLLAGE_ASSIGN_OR_RETURN(names, directory.list(directory.path()));
  }
  std::vector<std::string> uids;
  for (absl::string_view name : names) {
    if (absl::ConsumePrefix(&name, prefix)) uids.emplace_back(name);
  }
  return uids;
}

}  // namespace collage::drivers
