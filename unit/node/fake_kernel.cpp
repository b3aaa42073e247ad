#include "unit/node/fake_kernel.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace collage::testing {

using base::Context;
using mount::MountEntry;
using mount::Reached;
using mount::Writing;

void FakeKernel::on_step(Hook hook) {
  std::lock_guard lock(mutex_);
  hook_ = std::move(hook);
}

void FakeKernel::reboot() {
  std::lock_guard lock(mutex_);
  loops_.clear();
  read_only_.clear();
  mounts_.clear();
}

void FakeKernel::unmount_behind_the_back(const std::string& path) {
  std::lock_guard lock(mutex_);
  std::erase_if(mounts_, [&](const MountEntry& entry) { return entry.mount_point == path; });
  mounts_changed();
}

void FakeKernel::detach_behind_the_back(const std::string& image) {
  std::lock_guard lock(mutex_);
  loops_.erase(image);
}

void FakeKernel::lose(const Loss& loss) {
  std::lock_guard lock(mutex_);
  std::erase_if(mounts_, [&](const MountEntry& entry) {
    return std::find(loss.paths.begin(), loss.paths.end(), entry.mount_point) != loss.paths.end();
  });
  if (const auto loop = loops_.find(loss.image); loop != loops_.end()) {
    loops_[loss.other] = loop->second;
    loops_.erase(loss.image);
  }
  mounts_changed();
}

void FakeKernel::replace_behind_the_back(const std::string& path) {
  std::lock_guard lock(mutex_);
  std::erase_if(mounts_, [&](const MountEntry& entry) { return entry.mount_point == path; });
  mounts_.push_back({path, "/", "0:99", "tmpfs", "tmpfs", false, false});
  mounts_changed();
}

void FakeKernel::attach_foreign(const std::string& image, int number) {
  std::lock_guard lock(mutex_);
  loops_[image] = number;
}

void FakeKernel::mount_foreign(const std::string& path) {
  std::lock_guard lock(mutex_);
  mounts_.push_back({path, "/", "0:99", "tmpfs", "tmpfs", false, false});
  mounts_changed();
}

void FakeKernel::make_super_read_only(const std::string& path) {
  std::lock_guard lock(mutex_);
  for (MountEntry& entry : mounts_) {
    if (entry.mount_point == path) entry.super_read_only = true;
  }
}

std::vector<std::string> FakeKernel::attached() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> images;
  for (const auto& [image, number] : loops_) images.push_back(image);
  return images;
}

std::vector<std::string> FakeKernel::mounted() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> paths;
  for (const MountEntry& entry : mounts_) paths.push_back(entry.mount_point);
  std::sort(paths.begin(), paths.end());
  return paths;
}

mount::MountTable FakeKernel::table() const {
  std::lock_guard lock(mutex_);
  std::vector<mount::LoopEntry> loops;
  for (const auto& [image, number] : loops_) loops.push_back({absl::StrCat("/dev/loop", number), image});
  return mount::MountTable(mounts_, loops);
}

int FakeKernel::calls(const std::string& step) const {
  std::lock_guard lock(mutex_);
  const auto count = calls_.find(step);
  return count == calls_.end() ? 0 : count->second;
}

void FakeKernel::mounts_changed() {
  ++changes_;
  changed_.notify_all();
}

void FakeMounter::wait_for_change(const Context& context) {
  std::unique_lock lock(kernel_.mutex_);
  const auto changed = [&] { return kernel_.changes_ != seen_; };
  kernel_.changed_.wait_until(lock, context.stop(), context.deadline(), changed);
  seen_ = kernel_.changes_;
}

absl::Status FakeKernel::step(const std::string& name) {
  Hook hook;
  {
    std::lock_guard lock(mutex_);
    ++calls_[name];
    hook = hook_;
  }
  return hook ? hook(name) : absl::OkStatus();
}

absl::Status FakeKernel::after() {
  Hook hook;
  {
    std::lock_guard lock(mutex_);
    hook = hook_;
  }
  return hook ? hook("after") : absl::OkStatus();
}

absl::StatusOr<Reached> FakeMounter::attach(const Context& context, const std::string&,
                                            const drivers::Access& access, Writing writing) {
  COLLAGE_RETURN_IF_ERROR(context.status());
  COLLAGE_RETURN_IF_ERROR(kernel_.step("attach"));
  Reached reached;
  {
    std::lock_guard lock(kernel_.mutex_);
    const std::string& image = std::get<drivers::LoopFile>(access).path;
    const auto [loop, made] = kernel_.loops_.try_emplace(image, kernel_.next_loop_);
    if (made) {
      ++kernel_.next_loop_;
      if (writing == Writing::kReadOnly) kernel_.read_only_.insert(loop->second);
    }
    reached = {absl::StrCat("/dev/loop", loop->second), absl::StrCat("7:", loop->second), 1,
               static_cast<uint64_t>(loop->second) + 100};
  }
  COLLAGE_RETURN_IF_ERROR(kernel_.after());
  return reached;
}

absl::Status FakeMounter::mount(const Context& context, const std::string&, const Reached& reached,
                                const mount::FileSystem& file_system, const std::string& target) {
  COLLAGE_RETURN_IF_ERROR(context.status());
  COLLAGE_RETURN_IF_ERROR(kernel_.step("mount"));
  {
    std::lock_guard lock(kernel_.mutex_);
    const bool there = std::any_of(kernel_.loops_.begin(), kernel_.loops_.end(), [&](const auto& loop) {
      return absl::StrCat("7:", loop.second) == reached.number;
    });
    if (!there) return absl::InternalError(absl::StrCat(reached.path, " is not attached"));
    for (const MountEntry& entry : kernel_.mounts_) {
      if (entry.mount_point != target) continue;
      if (entry.device == reached.number) return absl::OkStatus();
      return absl::FailedPreconditionError(
          absl::StrCat(target, " is a mount point already, of ", entry.source));
    }
    const bool read_only = file_system.writing == Writing::kReadOnly;
    kernel_.mounts_.push_back(
        {target, "/", reached.number, file_system.type, reached.path, read_only, read_only});
    kernel_.mounts_changed();
  }
  return kernel_.after();
}

absl::Status FakeMounter::bind(const Context& context, const std::string&, const std::string& source,
                               const std::string& target, Writing writing) {
  COLLAGE_RETURN_IF_ERROR(context.status());
  COLLAGE_RETURN_IF_ERROR(kernel_.step("bind"));
  {
    std::lock_guard lock(kernel_.mutex_);
    MountEntry entry;
    for (const MountEntry& other : kernel_.mounts_) {
      if (other.mount_point == target)
        return absl::FailedPreconditionError(absl::StrCat(target, " is a mount point already"));
      if (other.mount_point == source) entry = other;
    }
    if (source.starts_with("/dev/"))
      entry = {"", source.substr(4), "0:6", "devtmpfs", "devtmpfs", false, false};
    if (entry.fs_type.empty())
      return absl::InternalError(absl::StrCat(source, " is not mounted: the wrong directory would be shown"));
    entry.mount_point = target;
    entry.read_only = writing == Writing::kReadOnly;
    kernel_.mounts_.push_back(entry);
    kernel_.mounts_changed();
  }
  return kernel_.after();
}

absl::Status FakeMounter::unmount(const Context& context, const std::string&, const std::string& target,
                                  mount::Leftover) {
  COLLAGE_RETURN_IF_ERROR(context.status());
  COLLAGE_RETURN_IF_ERROR(kernel_.step("unmount"));
  {
    std::lock_guard lock(kernel_.mutex_);
    std::erase_if(kernel_.mounts_, [&](const MountEntry& entry) { return entry.mount_point == target; });
    kernel_.mounts_changed();
  }
  return kernel_.after();
}

absl::Status FakeMounter::detach(const Context& context, const std::string&, const drivers::Access& access,
                                 const Reached& reached) {
  COLLAGE_RETURN_IF_ERROR(context.status());
  COLLAGE_RETURN_IF_ERROR(kernel_.step("detach"));
  {
    std::lock_guard lock(kernel_.mutex_);
    const std::string& image = std::get<drivers::LoopFile>(access).path;
    auto loop = kernel_.loops_.find(image);
    if (image.empty()) {
      loop = std::find_if(kernel_.loops_.begin(), kernel_.loops_.end(), [&](const auto& entry) {
        return absl::StrCat("/dev/loop", entry.second) == reached.path;
      });
    }
    if (loop == kernel_.loops_.end()) return absl::OkStatus();
    for (const MountEntry& entry : kernel_.mounts_) {
      const bool uses = entry.device == absl::StrCat("7:", loop->second) ||
                        entry.root == absl::StrCat("/loop", loop->second);
      if (uses)
        return absl::FailedPreconditionError(absl::StrCat("/dev/loop", loop->second, " is still mounted"));
    }
    kernel_.loops_.erase(loop);
  }
  return kernel_.after();
}

absl::StatusOr<mount::PathInfo> FakeMounter::inspect(const Context& context, const std::string&,
                                                     const std::string& path) {
  COLLAGE_RETURN_IF_ERROR(context.status());
  COLLAGE_RETURN_IF_ERROR(kernel_.step("inspect"));
  mount::PathInfo info;
  info.type = path.starts_with("/dev/") ? mount::PathInfo::Type::kBlock : mount::PathInfo::Type::kDirectory;
  info.total_bytes = 1000;
  if (info.type == mount::PathInfo::Type::kDirectory) {
    info.used_bytes = 400;
    info.available_bytes = 600;
    info.total_inodes = 50;
  }
  return info;
}

}  // namespace collage::testing
