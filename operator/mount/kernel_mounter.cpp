#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stop_token>

#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/random.h"
#include "base/status.h"
#include "operator/mount/helper_client.h"
#include "operator/mount/mounter.h"

namespace collage::mount {
namespace {

using base::Context;
using base::Json;
using std::chrono::seconds;

constexpr seconds kQuick(15);       // looks at something, or changes the mount table only
constexpr seconds kMount(90);       // may replay a journal
constexpr seconds kFormat(600);     // mkfs, e2fsck
constexpr seconds kFlush(120);      // writes back what a volume has in memory
constexpr seconds kDeviceWait(30);  // from the provider's answer until the device shows
constexpr std::chrono::milliseconds kDevicePoll(250);

template <class... Handlers>
struct Overload : Handlers... {
  using Handlers::operator()...;
};
template <class... Handlers>
Overload(Handlers...) -> Overload<Handlers...>;

absl::Status no_mounter(const char* access) {
  return absl::UnimplementedError(
      absl::StrCat("this version has no mounter for a volume reached as ", access));
}

// The uuid of the file system that is made for a volume: the same on every node and after every crash, so
// that a half-made file system can be told from anybody else's.
std::string file_system_uuid(const std::string& volume) {
  std::string hex = base::sha256_hex("collage file system of " + volume).substr(0, 32);
  hex[12] = '8';  // RFC 9562: version 8, made by a rule of our own
  hex[16] = 'a';
  return absl::StrCat(hex.substr(0, 8), "-", hex.substr(8, 4), "-", hex.substr(12, 4), "-", hex.substr(16, 4),
                      "-", hex.substr(20));
}

class KernelMounter : public Mounter {
 public:
  KernelMounter(std::string helper, std::string lock_directory)
      : helper_(std::move(helper), std::move(lock_directory)) {}

  absl::StatusOr<Reached> attach(const Context& context, const std::string& volume,
                                 const drivers::Access& access, Writing writing) override {
    using Answer = absl::StatusOr<Reached>;
    return std::visit(
        Overload{[&](const drivers::LoopFile& file) -> Answer {
                   return attach_loop(context, volume, file, writing);
                 },
                 [&](const drivers::BlockDevice& device) -> Answer {
                   return find_device(context, volume, device);
                 },
                 [&](const drivers::Directory& directory) -> Answer {
                   return find_directory(context, volume, directory);
                 },
                 [&](const drivers::NfsExport&) -> Answer { return no_mounter("an NFS export"); },
                 [&](const drivers::FuseProcess&) -> Answer { return no_mounter("a FUSE process"); }},
        access);
  }

  absl::Status mount(const Context& context, const std::string& volume, const Reached& reached,
                     const FileSystem& file_system, const std::string& target) override {
    if (reached.number.empty()) return bind(context, volume, reached.path, target, file_system.writing);
    COLLAGE_ASSIGN_OR_RETURN(const MountTable before, read_mount_table());
    const MountEntry* there = before.at(target);
    if (there != nullptr && there->device == reached.number) return absl::OkStatus();
    const bool read_only = file_system.writing == Writing::kReadOnly;
    // A device that is mounted somewhere holds a file system, and mkfs's guard could not open it.
    const bool in_use = std::any_of(before.entries().begin(), before.entries().end(),
                                    [&](const MountEntry& entry) { return entry.device == reached.number; });
    if (!in_use) {
      COLLAGE_RETURN_IF_ERROR(
          format(context, volume, reached, file_system.type, read_only, file_system.blank));
    }
    return helper_
        .call(context, "mount", volume, kMount,
              {{"device", reached.path},
               {"target", target},
               {"fsType", file_system.type},
               {"options", file_system.options},
               {"readOnly", read_only}})
        .status();
  }

  absl::Status bind(const Context& context, const std::string& volume, const std::string& source,
                    const std::string& target, Writing writing) override {
    return helper_
        .call(context, "bind", volume, kQuick,
              {{"source", source}, {"target", target}, {"readOnly", writing == Writing::kReadOnly}})
        .status();
  }

  absl::Status unmount(const Context& context, const std::string& volume, const std::string& target,
                       Leftover leftover) override {
    return helper_
        .call(context, "unmount", volume, kFlush,
              {{"target", target}, {"remove", leftover == Leftover::kRemove}})
        .status();
  }

  absl::Status detach(const Context& context, const std::string& volume, const drivers::Access& access,
                      const Reached& reached) override {
    return std::visit(
        Overload{[&](const drivers::LoopFile& file) -> absl::Status {
                   return detach_loop(context, volume, file, reached);
                 },
                 [](const drivers::BlockDevice&) -> absl::Status { return absl::OkStatus(); },
                 [](const drivers::Directory&) -> absl::Status { return absl::OkStatus(); },
                 [](const drivers::NfsExport&) -> absl::Status { return no_mounter("an NFS export"); },
                 [](const drivers::FuseProcess&) -> absl::Status { return no_mounter("a FUSE process"); }},
        access);
  }

  absl::StatusOr<PathInfo> inspect(const Context& context, const std::string& volume,
                                   const std::string& path) override {
    COLLAGE_ASSIGN_OR_RETURN(const Json result,
                             helper_.call(context, "inspect", volume, kQuick, {{"path", path}}));
    PathInfo info;
    const std::string type = base::get_string(result, "/type");
    using Type = PathInfo::Type;
    info.type = type == "missing"     ? Type::kMissing
                : type == "directory" ? Type::kDirectory
                : type == "file"      ? Type::kFile
                : type == "block"     ? Type::kBlock
                                      : Type::kOther;
    info.number = base::get_string(result, "/number");
    info.read_only = base::get_bool(result, "/readOnly");
    info.total_bytes = base::get_int(result, info.type == Type::kBlock ? "/size" : "/totalBytes");
    info.used_bytes = base::get_int(result, "/usedBytes");
    info.available_bytes = base::get_int(result, "/availableBytes");
    info.total_inodes = base::get_int(result, "/totalInodes");
    info.used_inodes = base::get_int(result, "/usedInodes");
    info.available_inodes = base::get_int(result, "/availableInodes");
    return info;
  }

  absl::StatusOr<MountTable> table() override { return read_mount_table(); }

  // proc(5): an open mountinfo is "exceptional" once after each change.
  void wait_for_change(const Context& context) override {
    const base::UniqueFd stopped(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    const std::stop_callback on_stop(context.stop(), [&] { ::eventfd_write(stopped.get(), 1); });
    pollfd waiting[] = {{mountinfo_.get(), POLLPRI, 0}, {stopped.get(), POLLIN, 0}};
    const auto most = std::min<std::chrono::nanoseconds>(context.remaining(), std::chrono::hours(1));
    ::poll(waiting, 2, static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(most).count()));
  }

 private:
  // Formats a blank device; any other must hold a file system of this type already.
  absl::Status format(const Context& context, const std::string& volume, const Reached& reached,
                      const std::string& type, bool read_only, Blank blank) {
    COLLAGE_ASSIGN_OR_RETURN(const Json done, helper_.call(context, "format", volume, kFormat,
                                                           {{"device", reached.path},
                                                            {"fsType", type},
                                                            {"uuid", file_system_uuid(volume)},
                                                            {"refuseBlank", blank == Blank::kRefuse},
                                                            {"readOnly", read_only}}));
    if (base::get_bool(done, "/formatted")) {
      base::log::info(context, "blank volume formatted",
                      {{"volume", volume}, {"device", reached.path}, {"type", type}});
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Reached> attach_loop(const Context& context, const std::string& volume,
                                      const drivers::LoopFile& file, Writing writing) {
    COLLAGE_ASSIGN_OR_RETURN(
        const Json result, helper_.call(context, "loop-attach", volume, kQuick,
                                        {{"file", file.path}, {"readOnly", writing == Writing::kReadOnly}}));
    return Reached{base::get_string(result, "/device"), base::get_string(result, "/number"),
                   static_cast<uint64_t>(base::get_int(result, "/fileDevice")),
                   static_cast<uint64_t>(base::get_int(result, "/fileInode"))};
  }

  absl::StatusOr<Reached> find_device(const Context& context, const std::string& volume,
                                      const drivers::BlockDevice& device) {
    const Context waiting = context.with_timeout(kDeviceWait);
    while (true) {
      const absl::StatusOr<Json> result = helper_.call(waiting, "find-device", volume, kQuick,
                                                       {{"serial", device.serial}, {"byId", device.by_id}});
      if (result.ok())
        return Reached{base::get_string(*result, "/device"), base::get_string(*result, "/number")};
      if (!absl::IsNotFound(result.status())) return result.status();
      if (!waiting.sleep_for(kDevicePoll).ok()) {
        return absl::UnavailableError(
            absl::StrCat("the device has not appeared yet: ", std::string(result.status().message())));
      }
    }
  }

  absl::StatusOr<Reached> find_directory(const Context& context, const std::string& volume,
                                         const drivers::Directory& directory) {
    COLLAGE_ASSIGN_OR_RETURN(const PathInfo info, inspect(context, volume, directory.path));
    if (info.type == PathInfo::Type::kDirectory) return Reached{directory.path, ""};
    return absl::FailedPreconditionError(absl::StrCat(directory.path, " is not a directory of this node"));
  }

  absl::Status detach_loop(const Context& context, const std::string& volume, const drivers::LoopFile& file,
                           const Reached& reached) {
    COLLAGE_ASSIGN_OR_RETURN(const Json result, helper_.call(context, "loop-detach", volume, kFlush,
                                                             {{"file", file.path},
                                                              {"device", reached.path},
                                                              {"fileDevice", reached.file_device},
                                                              {"fileInode", reached.file_inode}}));
    const std::string flush_error = base::get_string(result, "/flushError");
    if (!flush_error.empty()) {
      base::log::error(context, "a volume was let go with writes that failed",
                       {{"volume", volume}, {"error", flush_error}});
    }
    return absl::OkStatus();
  }

  HelperClient helper_;
  const base::UniqueFd mountinfo_{::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)};
};

}  // namespace

absl::StatusOr<std::unique_ptr<Mounter>> make_kernel_mounter(const std::string& helper,
                                                             const std::string& lock_directory) {
  COLLAGE_RETURN_IF_ERROR(base::make_directories(lock_directory, 0700));
  return std::make_unique<KernelMounter>(helper, lock_directory);
}

}  // namespace collage::mount
