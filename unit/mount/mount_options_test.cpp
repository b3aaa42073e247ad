#include "operator/mount/mount_options.h"

#include <gtest/gtest.h>

namespace collage::mount {
namespace {

struct Case {
  std::string_view name;
  std::string fs_type;
  std::vector<std::string> flags;
  std::string expected;  // "" with `refused` set: INVALID_ARGUMENT that names it
  std::string refused;
};

TEST(MountOptions, AreAllowedLeftOutOrRefused) {
  const Case cases[] = {
      {"none", "ext4", {}, "", ""},
      {"plain ones stay in order", "ext4", {"noatime", "discard,commit=30"}, "noatime,discard,commit=30", ""},
      {"words for mount(8) go",
       "ext4",
       {"defaults", "_netdev,nofail", "x-systemd.automount", "noatime"},
       "noatime",
       ""},
      {"xfs clones need nouuid", "xfs", {"noatime"}, "noatime,nouuid", ""},
      {"nouuid is not doubled", "xfs", {"nouuid"}, "nouuid", ""},
      {"a bind is another kind of mount", "ext4", {"bind"}, "", "bind"},
      {"so is a remount", "ext4", {"noatime,remount"}, "", "remount"},
      {"a value does not hide it", "ext4", {"loop=/dev/loop0"}, "", "loop=/dev/loop0"},
      {"an offset reaches beside the volume", "ext4", {"offset=4096"}, "", "offset=4096"},
      {"propagation is kubelet's", "ext4", {"rshared"}, "", "rshared"},
      {"control characters never reach a log", "ext4", {"a\nb"}, "", "?"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const absl::StatusOr<std::string> options = mount_options(c.fs_type, c.flags);
    if (c.refused.empty()) {
      ASSERT_TRUE(options.ok()) << options.status();
      EXPECT_EQ(*options, c.expected);
    } else {
      EXPECT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_NE(options.status().message().find("\"" + c.refused + "\""), absl::string_view::npos)
          << options.status();
    }
  }
}

}  // namespace
}  // namespace collage::mount
