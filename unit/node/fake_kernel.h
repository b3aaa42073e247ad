#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "operator/mount/mounter.h"

namespace collage::testing {

// The kernel of a node, as far as volumes are concerned: loop devices and mounts. It outlives the agents that
// a test starts on it, and is as strict as the real one: a mount over a mount, or of a device that is not
// attached, is an error of the test's subject.
class FakeKernel {
 public:
  // Asked before each change and after it, with a word such as "mount"; an error is the caller's answer
  // (after: an answer lost).
  using Hook = std::function<absl::Status(const std::string& step)>;

  void on_step(Hook hook);
  void reboot();  // nothing attached, nothing mounted
  // As if somebody else did it.
  void unmount_behind_the_back(const std::string& path);
  void detach_behind_the_back(const std::string& image);
  // Several losses at one instant: what is mounted at `paths` goes; so does the device of `image`, whose
  // number `other` is given, unless it is "".
  struct Loss {
    std::vector<std::string> paths;
    std::string image, other;
  };
  void lose(const Loss& loss);
  // What is mounted there gives way to a foreign mount.
  void replace_behind_the_back(const std::string& path);
  void attach_foreign(const std::string& image, int number);
  void mount_foreign(const std::string& path);
  void make_super_read_only(const std::string& path);

  std::vector<std::string> attached() const;  // image paths
  std::vector<std::string> mounted() const;   // mount points, once for each mount
  mount::MountTable table() const;
  int calls(const std::string& step) const;

 private:
  friend class FakeMounter;
  absl::Status step(const std::string& name);
  absl::Status after();
  void mounts_changed();  // mutex_ is held

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;  // mounts_
  int changes_ = 0;
  Hook hook_;
  std::map<std::string, int> loops_;  // image -> number
  std::set<int> read_only_;
  int next_loop_ = 0;
  std::vector<mount::MountEntry> mounts_;
  std::map<std::string, int> calls_;
};

class FakeMounter : public mount::Mounter {
 public:
  explicit FakeMounter(FakeKernel& kernel) : kernel_(kernel) {}
  absl::StatusOr<mount::Reached> attach(const base::Context& context, const std::string& volume,
                                        const drivers::Access& access, mount::Writing writing) override;
  absl::Status mount(const base::Context& context, const std::string& volume, const mount::Reached& reached,
                     const mount::FileSystem& file_system, const std::string& target) override;
  absl::Status bind(const base::Context& context, const std::string& volume, const std::string& source,
                    const std::string& target, mount::Writing writing) override;
  absl::Status unmount(const base::Context& context, const std::string& volume, const std::string& target,
                       mount::Leftover leftover) override;
  absl::Status detach(const base::Context& context, const std::string& volume, const drivers::Access& access,
                      const mount::Reached& reached) override;
  absl::StatusOr<mount::PathInfo> inspect(const base::Context& context, const std::string& volume,
                                          const std::string& path) override;
  absl::StatusOr<mount::MountTable> table() override { return kernel_.table(); }
  void wait_for_change(const base::Context& context) override;

 private:
  FakeKernel& kernel_;
  int seen_ = 0;
};

}  // namespace collage::testing
