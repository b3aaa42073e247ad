#pragma once

#include <sys/types.h>

#include <map>
#include <string>

namespace collage::base {

// This test program once more, running one of its tests named DISABLED_*, as a process of its own that can be
// signalled and killed. What it prints with say() is read here line by line.
class TestChild {
 public:
  // test: "ProcessChild.DISABLED_Serve".
  explicit TestChild(const std::string& test, const std::map<std::string, std::string>& environment = {});
  ~TestChild();  // kills what still runs
  TestChild(const TestChild&) = delete;

  pid_t pid() const { return pid_; }
  // The next line that it said; "" when it ended.
  std::string line();
  void signal(int number);
  // Waits for its end: the exit code, or 128 + signal.
  int wait();

  // True in the child, which must start without threads.
  static bool inside();
  // In the child.
  static void say(const std::string& line);

 private:
  pid_t pid_ = -1;
  int output_ = -1;
  std::string buffered_;
};

}  // namespace collage::base
