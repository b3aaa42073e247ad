#include "base/subprocess.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <future>
#include <thread>

#include "base/files.h"
#include "unit/testing/temp_dir.h"

namespace collage::base {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using testing::TempDir;

Command shell(const std::string& script) {
  return {.program = "/bin/sh", .arguments = {"-c", script}};
}

CommandResult run(const Command& command) {
  const auto result = run_command(Context().with_timeout(30s), command);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.value_or(CommandResult{.exit_code = -1});
}

// Until the process of that pid is gone: a killed group needs a moment, in which there is nothing to wait on.
bool gone(pid_t pid) {
  for (const auto until = std::chrono::steady_clock::now() + 10s; std::chrono::steady_clock::now() < until;) {
    if (kill(pid, 0) != 0 && errno == ESRCH) return true;
    // A zombie whose parent is elsewhere is dead as well.
    const auto stat = read_file("/proc/" + std::to_string(pid) + "/stat");
    if (stat.ok() && stat->find(") Z ") != std::string::npos) return true;
    std::this_thread::yield();
  }
  return false;
}

TEST(Subprocess, AnswersOutputAndExitCode) {
  const CommandResult result = run(shell("echo out; echo err >&2; exit 3"));
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(result.output, "out\n");
  EXPECT_EQ(result.error_output, "err\n");
}

TEST(Subprocess, LooksUpThePath) {
  EXPECT_EQ(run({.program = "true"}).exit_code, 0);
  const auto missing = run_command(Context(), {.program = "no-such-program"});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("no-such-program"));
  EXPECT_EQ(run_command(Context(), {.program = "/etc/passwd"}).status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST(Subprocess, ASignalIs128AndItsNumber) {
  EXPECT_EQ(run(shell("kill -TERM $$")).exit_code, 128 + SIGTERM);
}

TEST(Subprocess, FeedsInputOfAnySize) {
  Command cat = {.program = "cat", .max_output = 8 << 20};
  EXPECT_EQ(run(cat).output, "");
  cat.input = std::string("a\0b", 3);
  EXPECT_EQ(run(cat).output, cat.input);
  cat.input.assign(5 << 20, 'x');
  EXPECT_EQ(run(cat).output, cat.input);
}

TEST(Subprocess, AChildThatReadsNothingEndsNobody) {
  // With SIGPIPE as it is by default: the write into the closed pipe must not end this process.
  struct sigaction before;
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  sigaction(SIGPIPE, &standard, &before);
  Command command = shell("exec 0<&-; echo done");
  command.input.assign(1 << 20, 'x');
  EXPECT_EQ(run(command).output, "done\n");
  sigaction(SIGPIPE, &before, nullptr);
}

TEST(Subprocess, KeepsABoundedPartOfItsOutput) {
  Command command = shell("head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2; exit 5");
  command.max_output = 1000;
  const CommandResult result = run(command);
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_EQ(result.output.size(), 1000u);
  EXPECT_EQ(result.error_output.size(), 1000u);
  EXPECT_EQ(run(shell("head -c 1048576 /dev/zero")).output.size(), 1048576u);
}

TEST(Subprocess, InheritsOnlyWhatItIsGiven) {
  setenv("COLLAGE_TEST_SECRET", "hunter2", 1);
  Command command = {.program = "env", .environment = {{"GIVEN", "1"}}};
  const std::string output = run(command).output;
  unsetenv("COLLAGE_TEST_SECRET");
  EXPECT_THAT(output, ::testing::Not(HasSubstr("hunter2")));
  EXPECT_THAT(output, HasSubstr("GIVEN=1\n"));
  EXPECT_THAT(output, HasSubstr("LC_ALL=C\n"));
  EXPECT_THAT(output, HasSubstr("PATH="));
  EXPECT_EQ(std::count(output.begin(), output.end(), '\n'), 3);
}

TEST(Subprocess, EveryOtherDescriptorIsClosed) {
  TempDir dir;
  // Not close-on-exec, as a careless library would open it.
  const int leaked = open((dir / "leaked").c_str(), O_RDWR | O_CREAT, 0600);
  const int high = fcntl(leaked, F_DUPFD, 200);
  const std::string output = run({.program = "ls", .arguments = {"/proc/self/fd"}}).output;
  close(leaked);
  close(high);
  EXPECT_EQ(output, "0\n1\n2\n3\n");  // 3 is the directory that ls reads
}

TEST(Subprocess, SignalsAreAsAtTheStartOfAProgram) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const auto previous = signal(SIGPIPE, SIG_IGN);
  const std::string status = run(shell("grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status")).output;
  signal(SIGPIPE, previous);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_THAT(status, HasSubstr("SigBlk:\t0000000000000000"));
  // The C library's own two signals, 32 and 33, are its affair.
  const uint64_t ignored = std::stoull(status.substr(status.find("SigIgn:") + 7), nullptr, 16);
  EXPECT_EQ(ignored & ~(uint64_t{3} << 31), 0u) << status;
}

TEST(Subprocess, HasAProcessGroupOfItsOwn) {
  const std::string output = run(shell("echo $$; ps -o pgid= -p $$ || cut -d' ' -f5 /proc/$$/stat")).output;
  const size_t line = output.find('\n');
  EXPECT_EQ(std::stol(output.substr(0, line)), std::stol(output.substr(line + 1)));
}

TEST(Subprocess, ADeadlineKillsTheWholeGroup) {
  TempDir dir;
  const auto before = std::chrono::steady_clock::now();
  const auto result =
      run_command(Context().with_timeout(500ms),
                  shell("sleep 300 & echo $! > " + (dir / "pid") + "; trap '' TERM; wait; sleep 300"));
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(result.status().message()),
              HasSubstr("/bin/sh did not end in time and was killed"));
  EXPECT_LT(std::chrono::steady_clock::now() - before, 20s);
  EXPECT_TRUE(gone(static_cast<pid_t>(std::stol(*read_file(dir / "pid")))));
  EXPECT_EQ(abandoned_children(), 0);
}

TEST(Subprocess, AStopKillsItAtOnce) {
  std::stop_source stop;
  auto result = std::async(std::launch::async, [&] {
    // It never stops writing either: output must not keep the stop from being seen.
    return run_command(Context(stop.get_token()), shell("echo; exec yes"));
  });
  stop.request_stop();
  EXPECT_EQ(result.get().status().code(), absl::StatusCode::kCancelled);
}

TEST(Subprocess, NothingIsStartedForAContextThatHasEnded) {
  TempDir dir;
  const auto result = run_command(Context().with_timeout(0s), shell("touch " + (dir / "started")));
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(exists(dir / "started"));
}

TEST(Subprocess, DescendantsLeftInTheGroupAreKilledAtTheEnd) {
  const CommandResult result = run(shell("sleep 300 & echo $!"));
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_TRUE(gone(static_cast<pid_t>(std::stol(result.output))));
}

TEST(Subprocess, ADescendantThatLeftTheGroupIsNotWaitedFor) {
  // It holds the pipes open.
  const CommandResult result = run(shell("setsid sleep 300 & echo $!"));
  EXPECT_EQ(result.exit_code, 0);
  const auto pid = static_cast<pid_t>(std::stol(result.output));
  kill(pid, SIGKILL);
}

// A group of processes that can be frozen: such a process does not even end when killed, like one that waits
// for a dead NFS server. Needs root and the freezer of cgroup v1.
class Freezer {
 public:
  Freezer() : path_("/sys/fs/cgroup/freezer/collage-test-" + std::to_string(getpid())) {
    usable_ = mkdir(path_.c_str(), 0700) == 0 && exists(path_ + "/freezer.state");
  }
  ~Freezer() {
    if (usable_) set("THAWED");
    rmdir(path_.c_str());
  }
  bool usable() const { return usable_; }
  std::string procs() const { return path_ + "/cgroup.procs"; }
  void set(const std::string& state) {
    const UniqueFd fd(open((path_ + "/freezer.state").c_str(), O_WRONLY | O_CLOEXEC));
    ASSERT_EQ(write(fd.get(), state.data(), state.size()), static_cast<ssize_t>(state.size()));
    while (*read_file(path_ + "/freezer.state") != state + "\n") std::this_thread::yield();
  }

 private:
  std::string path_;
  bool usable_ = false;
};

TEST(Subprocess, AChildThatEvenKillDoesNotEndIsAbandonedAndReapedLater) {
  Freezer freezer;
  if (!freezer.usable()) GTEST_SKIP() << "needs root and the cgroup v1 freezer";
  TempDir dir;
  std::stop_source stop;
  auto result = std::async(std::launch::async, [&] {
    return run_command(Context(stop.get_token()),
                       shell("echo $$ > " + freezer.procs() + "; echo $$ > " + (dir / "pid.tmp") + "; mv " +
                             (dir / "pid.tmp") + " " + (dir / "pid") + "; exec sleep 300"));
  });
  while (!exists(dir / "pid")) std::this_thread::yield();
  freezer.set("FROZEN");
  stop.request_stop();
  const absl::Status status = result.get().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(std::string(status.message()), HasSubstr("abandoned, since it does not even end when killed"));
  EXPECT_EQ(abandoned_children(), 1);
  // Others go on meanwhile.
  EXPECT_EQ(run(shell("echo on")).output, "on\n");
  freezer.set("THAWED");
  EXPECT_TRUE(gone(static_cast<pid_t>(std::stol(*read_file(dir / "pid")))));
  while (abandoned_children() > 0) std::this_thread::yield();
}

TEST(Subprocess, ManyAtOnce) {
  std::vector<std::jthread> callers;
  for (int t = 0; t < 8; ++t) {
    callers.emplace_back([t] {
      for (int i = 0; i < 10; ++i) {
        Command command = {.program = "cat", .input = std::to_string(t * 100 + i)};
        EXPECT_EQ(run(command).output, command.input);
      }
    });
  }
}

}  // namespace
}  // namespace collage::base
