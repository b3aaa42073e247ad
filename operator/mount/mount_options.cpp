#include "operator/mount/mount_options.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace collage::mount {
namespace {

constexpr std::array<std::string_view, 20> kRefused = {
    "bind",       "rbind",       "move",     "remount", "loop",          "offset",       "sizelimit",
    "encryption", "private",     "rprivate", "shared",  "rshared",       "slave",        "rslave",
    "unbindable", "runbindable", "helper",   "uhelper", "X-mount.idmap", "X-mount.mkdir"};
constexpr std::array<std::string_view, 12> kForPrograms = {"defaults", "_netdev", "nofail",  "auto",
                                                           "noauto",   "user",    "nouser",  "users",
                                                           "group",    "owner",   "nogroup", "comment"};

template <size_t n>
bool among(const std::array<std::string_view, n>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

absl::StatusOr<std::string> mount_options(const std::string& fs_type, const std::vector<std::string>& flags) {
  std::vector<std::string> options;
  for (const std::string& flag : flags) {
    for (const std::string& option : std::vector<std::string>(absl::StrSplit(flag, ',', absl::SkipEmpty()))) {
      const std::string name = option.substr(0, option.find('='));
      const bool control =
          std::any_of(option.begin(), option.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
      if (control || among(kRefused, name)) {
        return absl::InvalidArgumentError(
            absl::StrCat("mount option \"", control ? "?" : option,
                         "\": is not allowed for a volume; remove it from mountOptions"));
      }
      if (among(kForPrograms, name) || name.starts_with("x-") || name.starts_with("X-")) continue;
      options.push_back(option);
    }
  }
  if (fs_type == "xfs" && std::find(options.begin(), options.end(), "nouuid") == options.end())
    options.push_back("nouuid");
  return absl::StrJoin(options, ",");
}

}  // namespace collage::mount
