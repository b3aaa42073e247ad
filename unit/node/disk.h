#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

namespace collage::testing {

// Stands between this program and the files of one directory: the calls of the C library that change it (open
// for creation, write, fsync, rename, unlink) come through here. One at a time; others' files are left alone.
class Disk {
 public:
  // Asked before each change with "create", "write", "fsync", "rename", "fsync directory" or "unlink"; false:
  // it does not happen, the caller gets EIO. So a process that dies there leaves just what it had done.
  using Hook = std::function<bool(const std::string& step)>;

  explicit Disk(std::string directory);
  ~Disk();
  void on_step(Hook hook);
  // A machine without power keeps what was synced alone: a name that the directory was synced with, and of a
  // file what it held when it was synced, else nothing.
  void lose_power();

  struct Calls;  // the C library's side

 private:
  bool allows(const std::string& step);
  bool holds(const std::string& path) const;
  bool is_open(int fd) const;
  void synced(int fd);

  const std::string directory_;
  mutable std::mutex mutex_;
  Hook hook_;
  std::map<unsigned long, std::string> contents_;  // of each file, when it was synced last; by inode
  std::map<std::string, unsigned long> names_;     // when the directory was synced last
  std::set<int> open_;  // numbers that files of the directory, or itself, were opened under
};

}  // namespace collage::testing
