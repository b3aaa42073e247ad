#include "base/http_exchange.h"

#include <algorithm>
#include <stop_token>
#include <utility>

namespace collage::base {
namespace {

constexpr size_t kMaxWhole = 64 << 20;
constexpr size_t kHighWater = 1 << 20;
// Each piece of a stream by itself would cost two switches of threads.
constexpr std::chrono::milliseconds kGather{4};
constexpr std::chrono::milliseconds kStream{20};  // since the last piece
constexpr size_t kEnough = 64 << 10;

}  // namespace

// Wakes the caller only when it has something to do: each time costs two switches of threads.
void Exchange::set_head(HttpResponse head) {
  {
    std::lock_guard lock(mutex_);
    head_ = std::move(head);
  }
  if (body_ == Body::kPieces) changed_.notify_all();
}

Exchange::Put Exchange::put(std::string_view piece, std::function<void(bool)> resume) {
  Put put = Put::kTaken;
  {
    std::lock_guard lock(mutex_);
    if (abandoned_) return Put::kRefused;
    if (body_ == Body::kWhole && buffered_ + piece.size() > kMaxWhole) return Put::kRefused;
    pieces_.emplace_back(piece);
    buffered_ += piece.size();
    if (body_ == Body::kWhole) return Put::kTaken;
    if (buffered_ > kHighWater) {
      held_ = std::move(resume);
      put = Put::kHeld;
    }
    if (gathering_ && buffered_ < kEnough) return put;
  }
  changed_.notify_all();
  return put;
}

void Exchange::finish(std::exception_ptr error) {
  {
    std::lock_guard lock(mutex_);
    done_ = true;
    error_ = std::move(error);
  }
  changed_.notify_all();
}

Exchange::Event Exchange::why(const Context& context, bool happened) const {
  if (happened) return error_ ? Event::kFailed : Event::kAnswer;
  return context.stopped() ? Event::kStopped : Event::kTime;
}

bool Exchange::wait(std::unique_lock<std::mutex>& lock, const Context& context, Time until,
                    const std::function<bool()>& happened) {
  while (!happened() && !context.stopped()) {
    if (until == Time::max()) {
      changed_.wait(lock);
    } else if (changed_.wait_until(lock, until) == std::cv_status::timeout) {
      break;
    }
  }
  return happened();
}

Exchange::Event Exchange::wait_for_answer(const Context& context, Time until) {
  const std::stop_callback stopped(context.stop(), [this] { wake(); });
  std::unique_lock lock(mutex_);
  const bool happened =
      wait(lock, context, until, [this] { return done_ || (head_ && body_ == Body::kPieces); });
  return why(context, happened);
}

Exchange::Event Exchange::wait_for_pieces(const Context& context, Time until,
                                          std::deque<std::string>* pieces) {
  pieces->clear();
  {
    const std::stop_callback stopped(context.stop(), [this] { wake(); });
    std::unique_lock lock(mutex_);
    if (const Time now = std::chrono::steady_clock::now(); now < taken_ + kStream) {
      gathering_ = true;
      wait(lock, context, std::min(until, now + kGather), [this] { return done_ || buffered_ >= kEnough; });
      gathering_ = false;
    }
    const bool happened = wait(lock, context, until, [this] { return done_ || !pieces_.empty(); });
    if (context.stopped()) return Event::kStopped;
    if (pieces_.empty()) return why(context, happened);
    pieces->swap(pieces_);
    buffered_ = 0;
    taken_ = std::chrono::steady_clock::now();
  }
  resume(true);
  return Event::kAnswer;
}

// Of a context that was stopped: not between a waiter's look at it and its sleep.
void Exchange::wake() {
  { std::lock_guard lock(mutex_); }
  changed_.notify_all();
}

HttpResponse Exchange::take_answer() {
  std::lock_guard lock(mutex_);
  HttpResponse answer = std::move(*head_);
  if (body_ == Body::kPieces) return answer;
  answer.body.reserve(buffered_);
  for (; !pieces_.empty(); pieces_.pop_front()) {
    if (answer.body.empty() && pieces_.size() == 1) {
      answer.body = std::move(pieces_.front());
    } else {
      answer.body += pieces_.front();
    }
  }
  return answer;
}

std::exception_ptr Exchange::error() const {
  std::lock_guard lock(mutex_);
  return error_;
}

void Exchange::abandon() {
  {
    std::lock_guard lock(mutex_);
    abandoned_ = true;
    pieces_.clear();
  }
  resume(false);
}

// Without the lock: it goes on in the library.
void Exchange::resume(bool go_on) {
  std::function<void(bool)> held;
  {
    std::lock_guard lock(mutex_);
    held.swap(held_);
  }
  if (held) held(go_on);
}

}  // namespace collage::base
