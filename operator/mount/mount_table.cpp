#include "operator/mount/mount_table.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/files.h"
#include "base/status.h"
#include "base/strings.h"

namespace collage::mount {
namespace {

constexpr size_t kMostBytes = 64 << 20;

// The kernel writes space, tab, newline and backslash as \ooo.
std::string unescape(absl::string_view text) {
  std::string plain;
  plain.reserve(text.size());
  auto octal = [&](size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '7'; };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

bool has_option(absl::string_view options, absl::string_view wanted) {
  for (absl::string_view option : absl::StrSplit(options, ',')) {
    if (option == wanted) return true;
  }
  return false;
}

// "/srv/share/pvc-1/image.0" -> "pvc-1", "image.0".
struct ShortName {
  std::string_view directory, file;
  explicit ShortName(std::string_view path) {
    const size_t last = path.find_last_of('/');
    file = path.substr(last == std::string_view::npos ? 0 : last + 1);
    if (last == std::string_view::npos || last == 0) return;
    directory = path.substr(0, last);
    directory = directory.substr(directory.find_last_of('/') + 1);
  }
  friend bool operator==(const ShortName&, const ShortName&) = default;
};

}  // namespace

const MountEntry* MountTable::at(std::string_view path) const {
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
    if (entry->mount_point == path) return &*entry;
  }
  return nullptr;
}

bool MountTable::backs(std::string_view device, std::string_view file) const {
  for (const LoopEntry& loop : loops_) {
    if (loop.device == device) return ShortName(loop.file) == ShortName(file);
  }
  return false;
}

std::vector<std::string> MountTable::loops_in(std::string_view directory_name) const {
  std::vector<std::string> devices;
  for (const LoopEntry& loop : loops_) {
    if (!directory_name.empty() && ShortName(loop.file).directory == directory_name)
      devices.push_back(loop.device);
  }
  return devices;
}

// id parent major:minor root mount-point options optional-fields... - type source super-options
MountTable parse_mount_table(std::string_view mountinfo) {
  std::vector<MountEntry> entries;
  for (absl::string_view line : absl::StrSplit(base::absl_view(mountinfo), '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    size_t dash = 6;
    while (dash < fields.size() && fields[dash] != "-") ++dash;
    if (dash + 2 >= fields.size()) continue;
    MountEntry entry;
    entry.device = std::string(fields[2]);
    entry.root = unescape(fields[3]);
    entry.mount_point = unescape(fields[4]);
    entry.read_only = has_option(fields[5], "ro");
    entry.fs_type = unescape(fields[dash + 1]);
    entry.source = unescape(fields[dash + 2]);
    entry.super_read_only = dash + 3 < fields.size() && has_option(fields[dash + 3], "ro");
    entries.push_back(std::move(entry));
  }
  return MountTable(std::move(entries));
}

absl::StatusOr<MountTable> read_mount_table() {
  COLLAGE_ASSIGN_OR_RETURN(const std::string text, base::read_file("/proc/self/mountinfo", kMostBytes));
  return MountTable(parse_mount_table(text).entries(), read_loops("/sys/block"));
}

std::vector<LoopEntry> read_loops(const std::string& block) {
  std::vector<LoopEntry> loops;
  const absl::StatusOr<std::vector<std::string>> names = base::list_directory(block);
  if (!names.ok()) return loops;
  for (const std::string& name : *names) {
    if (!name.starts_with("loop")) continue;
    // Only a device that is set up has this file.
    const absl::StatusOr<std::string> file =
        base::read_file(absl::StrCat(block, "/", name, "/loop/backing_file"));
    if (!file.ok()) continue;
    const absl::string_view line = absl::StripSuffix(*file, "\n");
    loops.push_back({absl::StrCat("/dev/", name), std::string(absl::StripSuffix(line, " (deleted)"))});
  }
  return loops;
}

std::string canonical_mount_point(const std::string& path) {
  const std::filesystem::path given(path);
  std::error_code error;
  const auto parent = std::filesystem::canonical(given.parent_path(), error);
  return error ? path : (parent / given.filename()).string();
}

}  // namespace collage::mount
