#include "base/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "base/files.h"
#include "base/status.h"
#include "base/strings.h"

namespace collage::base {
namespace {

using Time = std::chrono::steady_clock::time_point;
constexpr std::chrono::seconds kKillGrace(1);

// Waits for abandoned children on a thread of its own, started with the first. Never destroyed.
class Reaper {
 public:
  static Reaper& instance() {
    static auto* const reaper = new Reaper;
    return *reaper;
  }

  void take(pid_t pid, UniqueFd pidfd) {
    std::lock_guard lock(mutex_);
    children_.push_back({pid, std::move(pidfd)});
    if (!wake_) {
      wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      std::thread([this] { run(); }).detach();
    }
    eventfd_write(wake_.get(), 1);
  }

  int count() {
    std::lock_guard lock(mutex_);
    return static_cast<int>(children_.size());
  }

 private:
  struct Child {
    pid_t pid;
    UniqueFd pidfd;
  };

  [[noreturn]] void run() {
    while (true) {
      std::vector<pollfd> waiting;
      {
        std::lock_guard lock(mutex_);
        waiting.push_back({wake_.get(), POLLIN, 0});
        for (const Child& child : children_) waiting.push_back({child.pidfd.get(), POLLIN, 0});
      }
      poll(waiting.data(), waiting.size(), -1);
      eventfd_t ignored;
      eventfd_read(waiting.front().fd, &ignored);
      std::lock_guard lock(mutex_);
      std::erase_if(children_,
                    [](const Child& child) { return waitpid(child.pid, nullptr, WNOHANG) == child.pid; });
    }
  }

  std::mutex mutex_;
  std::vector<Child> children_;
  UniqueFd wake_;
};

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

// Descriptors above 2, so that giving the child its 0, 1 and 2 cannot overwrite one that is still to be
// given.
absl::StatusOr<Pipe> make_pipe() {
  int raw[2];
  if (pipe2(raw, O_CLOEXEC) != 0) return errno_status(errno, "make a pipe");
  Pipe made{UniqueFd(raw[0]), UniqueFd(raw[1])};
  for (UniqueFd* end : {&made.read, &made.write}) {
    if (end->get() > 2) continue;
    UniqueFd higher(fcntl(end->get(), F_DUPFD_CLOEXEC, 3));
    if (!higher) return errno_status(errno, "duplicate a pipe");
    *end = std::move(higher);
  }
  return made;
}

void set_nonblocking(int fd) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

// write() without SIGPIPE, whatever the process does with that signal.
ssize_t write_quietly(int fd, const char* data, size_t size) {
  sigset_t pipe_signal, before;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  const ssize_t wrote = write(fd, data, size);
  const int error = errno;
  if (wrote < 0 && error == EPIPE && sigismember(&before, SIGPIPE) == 0) {
    const timespec at_once{};
    sigtimedwait(&pipe_signal, nullptr, &at_once);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return wrote;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> list;
  for (std::string& string : strings) list.push_back(string.data());
  list.push_back(nullptr);
  return list;
}

std::vector<std::string> environment_of(const Command& command) {
  std::map<std::string, std::string> all = command.environment;
  const char* path = getenv("PATH");
  all.emplace("PATH",
              path != nullptr ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  all.emplace("LC_ALL", "C");
  std::vector<std::string> lines;
  for (const auto& [key, value] : all) lines.push_back(cat(key, "=", value));
  return lines;
}

absl::StatusOr<pid_t> spawn(const Command& command, int in, int out, int err) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  const absl::Cleanup destroy = [&] {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  };
  posix_spawn_file_actions_adddup2(&actions, in, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  posix_spawn_file_actions_adddup2(&actions, err, 2);
  // Everything of ours is close-on-exec; what a library opened may not be.
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

  std::vector<std::string> argument_strings{command.program};
  argument_strings.insert(argument_strings.end(), command.arguments.begin(), command.arguments.end());
  std::vector<std::string> environment_strings = environment_of(command);
  const std::vector<char*> arguments = pointers(argument_strings);
  const std::vector<char*> environment = pointers(environment_strings);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, command.program.c_str(), &actions, &attributes, arguments.data(),
                                 environment.data());
  if (error != 0) return errno_status(error, cat("run ", command.program));
  return pid;
}

// A started child with our ends of its pipes. Everything here runs on the calling thread.
class Child {
 public:
  Child(const Command& command, pid_t pid, UniqueFd pidfd, UniqueFd in, UniqueFd out, UniqueFd err)
      : command_(command),
        pid_(pid),
        pidfd_(std::move(pidfd)),
        in_(std::move(in)),
        out_(std::move(out)),
        err_(std::move(err)) {
    for (const UniqueFd* fd : {&in_, &out_, &err_}) set_nonblocking(fd->get());
  }

  absl::StatusOr<CommandResult> run(const Context& context);

 private:
  // Moves bytes until the child ends (true), `until` comes, or `stop` is readable.
  bool pump(Time until, int stop);
  void feed();
  static void drain(UniqueFd& fd, std::string& to, size_t max);
  // After the child has ended: kills what is left of its group, then reaps it. In this order, since its pid,
  // which names the group, is not given to anybody else before.
  int reap();
  absl::Status give_up(const Context& context);

  const Command& command_;
  const pid_t pid_;
  UniqueFd pidfd_;
  UniqueFd in_, out_, err_;
  size_t fed_ = 0;
  CommandResult result_;
};

void Child::feed() {
  while (in_ && fed_ < command_.input.size()) {
    const ssize_t wrote =
        write_quietly(in_.get(), command_.input.data() + fed_, command_.input.size() - fed_);
    if (wrote < 0 && errno == EAGAIN) return;
    if (wrote < 0) break;  // it reads no further, which is its right
    fed_ += static_cast<size_t>(wrote);
  }
  in_.reset();
}

void Child::drain(UniqueFd& fd, std::string& to, size_t max) {
  char buffer[16 << 10];
  // A writer that never pauses must not keep us from looking at the deadline.
  for (int i = 0; fd && i < 64; ++i) {
    const ssize_t got = read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
      fd.reset();
      return;
    }
    to.append(buffer, std::min(static_cast<size_t>(got), max - std::min(max, to.size())));
  }
}

bool Child::pump(Time until, int stop) {
  while (true) {
    std::array<pollfd, 5> waiting{{{pidfd_.get(), POLLIN, 0},
                                   {stop, POLLIN, 0},
                                   {in_.get(), POLLOUT, 0},
                                   {out_.get(), POLLIN, 0},
                                   {err_.get(), POLLIN, 0}}};
    const auto left = until - std::chrono::steady_clock::now();
    const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(left).count();
    if (milliseconds <= 0) return false;
    poll(waiting.data(), waiting.size(), static_cast<int>(std::min<int64_t>(milliseconds, 3600'000)));
    if (waiting[2].revents != 0) feed();
    if (waiting[3].revents != 0) drain(out_, result_.output, command_.max_output);
    if (waiting[4].revents != 0) drain(err_, result_.error_output, command_.max_output);
    if (waiting[0].revents != 0) return true;
    if (waiting[1].revents != 0) return false;
  }
}

int Child::reap() {
  kill(-pid_, SIGKILL);
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

absl::Status Child::give_up(const Context& context) {
  kill(-pid_, SIGKILL);
  const Time until = std::chrono::steady_clock::now() + kKillGrace;
  std::string fate = "killed";
  if (pump(until, -1)) {
    reap();
  } else {
    Reaper::instance().take(pid_, std::move(pidfd_));
    fate = "abandoned, since it does not even end when killed";
  }
  const std::string message =
      cat(command_.program, context.stopped() ? " was stopped" : " did not end in time", " and was ", fate);
  return context.stopped() ? absl::CancelledError(message) : absl::DeadlineExceededError(message);
}

absl::StatusOr<CommandResult> Child::run(const Context& context) {
  UniqueFd stopped(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  std::stop_callback on_stop(context.stop(), [&] { eventfd_write(stopped.get(), 1); });
  const auto remaining =
      std::min<std::chrono::nanoseconds>(context.remaining(), std::chrono::hours(24 * 365));
  feed();
  if (!pump(std::chrono::steady_clock::now() + remaining, stopped.get())) return give_up(context);
  result_.exit_code = reap();
  // The rest of what the pipes hold; a descendant that left the group may keep them open, and is not waited
  // for.
  for (int i = 0; i < 1024 && (out_ || err_); ++i) {
    const size_t before = result_.output.size() + result_.error_output.size();
    drain(out_, result_.output, command_.max_output);
    drain(err_, result_.error_output, command_.max_output);
    if (result_.output.size() + result_.error_output.size() == before) break;
  }
  return std::move(result_);
}

}  // namespace

absl::StatusOr<CommandResult> run_command(const Context& context, const Command& command) {
  COLLAGE_RETURN_IF_ERROR(context.status());
  COLLAGE_ASSIGN_OR_RETURN(Pipe in, make_pipe());
  COLLAGE_ASSIGN_OR_RETURN(Pipe out, make_pipe());
  COLLAGE_ASSIGN_OR_RETURN(Pipe err, make_pipe());
  COLLAGE_ASSIGN_OR_RETURN(const pid_t pid, spawn(command, in.read.get(), out.write.get(), err.write.get()));
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    const int error = errno;
    kill(-pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return errno_status(error, cat("watch ", command.program));
  }
  in.read.reset();
  out.write.reset();
  err.write.reset();
  Child child(command, pid, std::move(pidfd), std::move(in.write), std::move(out.read), std::move(err.read));
  return child.run(context);
}

int abandoned_children() {
  return Reaper::instance().count();
}

}  // namespace collage::base
