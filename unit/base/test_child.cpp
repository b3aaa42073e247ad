#include "unit/base/test_child.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace collage::base {
namespace {

constexpr char kPrefix[] = "child: ";
constexpr char kMark[] = "COLLAGE_TEST_CHILD";

}  // namespace

TestChild::TestChild(const std::string& test, const std::map<std::string, std::string>& environment) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  std::vector<std::string> arguments = {"/proc/self/exe", "--gtest_filter=" + test,
                                        "--gtest_also_run_disabled_tests", "--gtest_color=no"};
  std::vector<std::string> variables = {"PATH=/usr/bin:/bin", std::string(kMark) + "=1"};
  for (const auto& [key, value] : environment) variables.push_back(key + "=" + value);
  std::vector<char*> argv, envp;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  for (std::string& variable : variables) envp.push_back(variable.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  if (posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, argv.data(), envp.data()) != 0) abort();
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  output_ = ends[0];
}

TestChild::~TestChild() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    wait();
  }
  close(output_);
}

std::string TestChild::line() {
  while (true) {
    const size_t end = buffered_.find('\n');
    if (end != std::string::npos) {
      const std::string line = buffered_.substr(0, end);
      buffered_.erase(0, end + 1);
      if (line.starts_with(kPrefix)) return line.substr(sizeof kPrefix - 1);
      continue;
    }
    char buffer[1024];
    const ssize_t got = read(output_, buffer, sizeof buffer);
    if (got <= 0) return "";
    buffered_.append(buffer, static_cast<size_t>(got));
  }
}

void TestChild::signal(int number) {
  kill(pid_, number);
}

int TestChild::wait() {
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

bool TestChild::inside() {
  return getenv(kMark) != nullptr;
}

void TestChild::say(const std::string& line) {
  const std::string text = kPrefix + line + "\n";
  if (write(1, text.data(), text.size()) < 0) abort();
}

}  // namespace collage::base
