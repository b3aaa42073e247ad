#include "base/process.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "base/files.h"
#include "base/log.h"

namespace collage::base {
namespace {

sigset_t handled_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  return signals;
}

}  // namespace

void block_signals() {
  const sigset_t signals = handled_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

struct Process::Impl {
  using Time = std::chrono::steady_clock::time_point;
  enum Wake : eventfd_t { kEnd = 1, kStop = 1 << 16 };

  explicit Impl(std::chrono::seconds patience) : grace(patience) {
    const sigset_t signals = handled_signals();
    signal_fd = UniqueFd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    wake_fd = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    thread = std::thread([this] { run(); });
  }

  // The signal thread: one place where signals, requests to stop and the grace period meet.
  void run() {
    pthread_setname_np(pthread_self(), "signals");
    Time give_up = Time::max();
    while (true) {
      pollfd waiting[] = {{signal_fd.get(), POLLIN, 0}, {wake_fd.get(), POLLIN, 0}};
      poll(waiting, 2, timeout_ms(give_up));
      if (std::chrono::steady_clock::now() >= give_up) end_at_once("the time to stop is over");
      eventfd_t why = 0;
      if (eventfd_read(wake_fd.get(), &why) == 0) {
        if (why % kStop != 0) return;
        if (give_up == Time::max()) give_up = begin_stop("request");
      }
      signalfd_siginfo info;
      while (read(signal_fd.get(), &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGHUP) {
          call_reload();
          continue;
        }
        if (give_up != Time::max()) end_at_once("a second signal");
        give_up = begin_stop(info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
      }
    }
  }

  static int timeout_ms(Time give_up) {
    if (give_up == Time::max()) return -1;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(give_up - std::chrono::steady_clock::now());
    return static_cast<int>(std::max<int64_t>(left.count(), 0));
  }

  // Answers when the patience ends.
  Time begin_stop(const char* reason) {
    const Time until = std::chrono::steady_clock::now() + grace;
    log::info(Context(), "stopping", {{"reason", reason}, {"grace_seconds", grace.count()}});
    // Elsewhere: a callback that hangs must not keep this thread from ending the process.
    std::thread([stopping = source]() mutable { stopping.request_stop(); }).detach();
    return until;
  }

  [[noreturn]] static void end_at_once(const char* reason) {
    log::error(Context(), "ending at once", {{"reason", reason}});
    _exit(1);
  }

  void call_reload() {
    std::function<void()> call;
    {
      std::lock_guard lock(mutex);
      call = reload;
    }
    if (call) call();
  }

  const std::chrono::seconds grace;
  std::stop_source source;
  UniqueFd signal_fd;
  UniqueFd wake_fd;
  std::mutex mutex;
  std::function<void()> reload;
  std::thread thread;
};

Process::Process(std::chrono::seconds grace) : impl_(new Impl(grace)) {}

Process::~Process() {
  eventfd_write(impl_->wake_fd.get(), Impl::kEnd);
  impl_->thread.join();
  delete impl_;
}

std::stop_token Process::stop() const {
  return impl_->source.get_token();
}

void Process::request_stop() {
  eventfd_write(impl_->wake_fd.get(), Impl::kStop);
}

void Process::on_reload(std::function<void()> reload) {
  std::lock_guard lock(impl_->mutex);
  impl_->reload = std::move(reload);
}

void Process::wait() const {
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock lock(mutex);
  stopped.wait(lock, impl_->source.get_token(), [] { return false; });
}

}  // namespace collage::base
