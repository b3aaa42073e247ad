#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "base/files.h"

namespace collage::testing {

// A directory whose server took every question and never answers: a FUSE file system without one. Whoever
// looks at it sleeps in the kernel, and not even SIGKILL ends that (state D), until the share ends.
class DeadShare {
 public:
  explicit DeadShare(const std::string& directory)
      : device_(open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK)), end_(eventfd(0, EFD_CLOEXEC)) {
    const std::string options =
        "fd=" + std::to_string(device_.get()) + ",rootmode=40000,user_id=0,group_id=0,allow_other";
    mounted_ = device_ && mount("dead", directory.c_str(), "fuse", 0, options.c_str()) == 0;
    EXPECT_TRUE(mounted_) << "these tests need /dev/fuse: " << std::strerror(errno);
    thread_ = std::thread([this] { run(); });
  }
  ~DeadShare() { end(); }

  // Every question is answered with an error now: what slept wakes up.
  void end() {
    if (!thread_.joinable()) return;
    eventfd_write(end_.get(), 1);
    thread_.join();
    device_.reset();
  }

 private:
  void run() {
    std::vector<char> request(1 << 20);
    for (;;) {
      pollfd waiting[] = {{device_.get(), POLLIN, 0}, {end_.get(), POLLIN, 0}};
      poll(waiting, 2, -1);
      if (waiting[1].revents != 0) return;
      if (read(device_.get(), request.data(), request.size()) < static_cast<ssize_t>(sizeof(fuse_in_header)))
        continue;
      fuse_in_header question{};
      std::memcpy(&question, request.data(), sizeof question);
      if (question.opcode == FUSE_INIT) greet(question.unique);
    }
  }
  // The one answer that it gives.
  void greet(uint64_t unique) const {
    struct {
      fuse_out_header header;
      fuse_init_out init;
    } answer{};
    answer.header = {.len = sizeof answer, .error = 0, .unique = unique};
    answer.init.major = FUSE_KERNEL_VERSION;
    answer.init.minor = FUSE_KERNEL_MINOR_VERSION;
    answer.init.max_write = 4096;
    EXPECT_EQ(write(device_.get(), &answer, sizeof answer), static_cast<ssize_t>(sizeof answer));
  }

  base::UniqueFd device_, end_;
  bool mounted_ = false;
  std::thread thread_;
};

}  // namespace collage::testing
