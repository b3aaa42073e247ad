#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/context.h"
#include "base/http_client.h"

// Where a request that runs on the client library's pool meets the thread that waits for it; not for use
// outside base/.
namespace collage::base {

// Owned by both sides: a caller that gives up goes, and the pool's side finds out at its next step. Thread
// safe.
class Exchange {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // The whole body up to 64 MiB, or pieces for a caller that takes them, with back-pressure beyond 1 MiB.
  enum class Body { kWhole, kPieces };

  explicit Exchange(Body body) : body_(body) {}

  // ---- The pool's side; never blocks.
  void set_head(HttpResponse head);
  enum class Put { kTaken, kHeld, kRefused };
  // kHeld: taken, but the next piece must wait until resume(true), or resume(false) when the caller has gone;
  // called once.
  Put put(std::string_view piece, std::function<void(bool go_on)> resume);
  // The end; error is nullptr when all went well.
  void finish(std::exception_ptr error);

  // ---- The caller's side.
  enum class Event { kAnswer, kFailed, kTime, kStopped };
  // Until the answer is there (whole, or its head) or it failed.
  Event wait_for_answer(const Context& context, Time until);
  // Until there are pieces, the end (kAnswer with none), or it failed after the pieces before were taken. A
  // piece that comes after a rest is handed over at once; while they come in a stream, those of some
  // milliseconds together.
  Event wait_for_pieces(const Context& context, Time until, std::deque<std::string>* pieces);
  // After kAnswer: the head, with the body when it is kept as a whole.
  HttpResponse take_answer();
  // After kFailed.
  std::exception_ptr error() const;
  // Refuses whatever comes from now on.
  void abandon();

 private:
  Event why(const Context& context, bool happened) const;
  // Whether it happened before `until` and before the context was stopped.
  bool wait(std::unique_lock<std::mutex>& lock, const Context& context, Time until,
            const std::function<bool()>& happened);
  void resume(bool go_on);
  void wake();

  const Body body_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<HttpResponse> head_;
  std::deque<std::string> pieces_;
  size_t buffered_ = 0;
  Time taken_{};            // when the last pieces were
  bool gathering_ = false;  // the caller waits for more than one piece
  bool done_ = false;
  bool abandoned_ = false;
  std::exception_ptr error_;
  std::function<void(bool)> held_;
};

}  // namespace collage::base
