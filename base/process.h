#pragma once

#include <chrono>
#include <functional>
#include <stop_token>

namespace collage::base {

// The process's life: signals become a stop token.
//
//   main: block_signals() before any library starts a thread  ->  Process process;  ->  work until
//   process.stop()  ->  return
//
// SIGPIPE is ignored. SIGTERM and SIGINT request stop; a second one, or `grace` (25 s) after the first, ends
// the process at once with code 1. SIGHUP calls the reload function, if any.
void block_signals();

class Process {
 public:
  explicit Process(std::chrono::seconds grace = std::chrono::seconds(25));
  ~Process();
  std::stop_token stop() const;
  void request_stop();  // from inside: as if SIGTERM had come
  // Called on the signal thread, which meanwhile handles no signal: quick, or handed on.
  void on_reload(std::function<void()> reload);
  // Blocks until stop is requested.
  void wait() const;

 private:
  struct Impl;
  Impl* impl_;
};

}  // namespace collage::base
