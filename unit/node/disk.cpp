#include "unit/node/disk.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>
#include <vector>

namespace collage::testing {
namespace {

std::atomic<Disk*> current = nullptr;

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int refuse() {
  errno = EIO;
  return -1;
}

}  // namespace

struct Disk::Calls {
  static int open(const char* path, int flags, mode_t mode) {
    static auto* const real = next<int(const char*, int, ...)>("open");
    Disk* const disk = current;
    const bool watched = disk != nullptr && (flags & O_CREAT) != 0 && disk->holds(path);
    if (watched && !disk->allows("create")) return refuse();
    const int fd = real(path, flags, mode);
    if (disk == nullptr || fd < 0) return fd;
    const std::lock_guard lock(disk->mutex_);
    if (watched || path == disk->directory_) disk->open_.insert(fd);
    return fd;
  }
  static ssize_t write(int fd, const void* data, size_t size) {
    static auto* const real = next<ssize_t(int, const void*, size_t)>("write");
    Disk* const disk = current;
    if (disk != nullptr && disk->is_open(fd) && !disk->allows("write")) return refuse();
    return real(fd, data, size);
  }
  static int fsync(int fd) {
    static auto* const real = next<int(int)>("fsync");
    Disk* const disk = current;
    if (disk == nullptr || !disk->is_open(fd)) return real(fd);
    struct stat about {};
    const bool directory = fstat(fd, &about) == 0 && S_ISDIR(about.st_mode);
    if (!disk->allows(directory ? "fsync directory" : "fsync")) return refuse();
    disk->synced(fd);
    return 0;  // the real disk need not wait
  }
  static int rename(const char* from, const char* to) {
    static auto* const real = next<int(const char*, const char*)>("rename");
    Disk* const disk = current;
    if (disk != nullptr && disk->holds(to) && !disk->allows("rename")) return refuse();
    return real(from, to);
  }
  static int unlink(const char* path) {
    static auto* const real = next<int(const char*)>("unlink");
    Disk* const disk = current;
    struct stat about {};
    const bool there = disk != nullptr && disk->holds(path) && lstat(path, &about) == 0;
    if (there && !disk->allows("unlink")) return refuse();
    return real(path);
  }
};

Disk::Disk(std::string directory) : directory_(std::move(directory)) {
  current = this;
}

Disk::~Disk() {
  current = nullptr;
}

void Disk::on_step(Hook hook) {
  const std::lock_guard lock(mutex_);
  hook_ = std::move(hook);
}

bool Disk::allows(const std::string& step) {
  Hook hook;
  {
    const std::lock_guard lock(mutex_);
    hook = hook_;
  }
  return !hook || hook(step);
}

bool Disk::holds(const std::string& path) const {
  return path.starts_with(directory_ + "/");
}

// A number is used again once its file is closed: what it stands for now counts.
bool Disk::is_open(int fd) const {
  {
    const std::lock_guard lock(mutex_);
    if (!open_.contains(fd)) return false;
  }
  std::error_code ignored;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), ignored);
  return path.string().starts_with(directory_);
}

void Disk::synced(int fd) {
  const std::lock_guard lock(mutex_);
  struct stat about {};
  if (fstat(fd, &about) != 0) return;
  if (!S_ISDIR(about.st_mode)) {
    contents_[about.st_ino] = read_all("/proc/self/fd/" + std::to_string(fd));
    return;
  }
  names_.clear();
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    if (stat(entry.path().c_str(), &about) == 0) names_[entry.path().filename()] = about.st_ino;
  }
}

void Disk::lose_power() {
  const std::lock_guard lock(mutex_);
  Disk* const self = current.exchange(nullptr);
  std::vector<std::pair<std::string, std::string>> kept;
  for (const auto& [name, inode] : names_) kept.emplace_back(name, contents_[inode]);
  std::filesystem::create_directories(directory_);
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    std::filesystem::remove(entry.path());
  }
  contents_.clear();
  names_.clear();
  for (const auto& [name, content] : kept) {
    const std::string path = directory_ + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    struct stat about {};
    if (stat(path.c_str(), &about) != 0) continue;
    contents_[about.st_ino] = content;
    names_[name] = about.st_ino;
  }
  current = self;
}

}  // namespace collage::testing

// In place of the C library's, for this executable.
extern "C" {

int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list list;
    va_start(list, flags);
    mode = va_arg(list, mode_t);
    va_end(list);
  }
  return collage::testing::Disk::Calls::open(path, flags, mode);
}

ssize_t write(int fd, const void* data, size_t size) {
  return collage::testing::Disk::Calls::write(fd, data, size);
}

int fsync(int fd) {
  return collage::testing::Disk::Calls::fsync(fd);
}

int rename(const char* from, const char* to) noexcept {
  return collage::testing::Disk::Calls::rename(from, to);
}

int unlink(const char* path) noexcept {
  return collage::testing::Disk::Calls::unlink(path);
}

}  // extern "C"
