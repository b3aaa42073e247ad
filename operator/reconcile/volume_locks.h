#pragma once

#include <mutex>
#include <set>
#include <string>

namespace collage::reconcile {

// One call at a time on a volume (the driver port's promise to drivers), across all controllers: a detach
// that still looks at an attachment that is gone never runs into the attach of its successor. Nobody waits:
// who does not get the volume comes again. Keys are volume handles. Thread safe; outlives its holds.
class VolumeLocks {
 public:
  class Hold {
   public:
    Hold() = default;
    Hold(VolumeLocks* locks, std::string handle) : locks_(locks), handle_(std::move(handle)) {}
    Hold(Hold&& other) noexcept : locks_(other.locks_), handle_(std::move(other.handle_)) {
      other.locks_ = nullptr;
    }
    Hold& operator=(Hold&&) = delete;
    ~Hold() {
      if (locks_ != nullptr) locks_->release(handle_);
    }
    explicit operator bool() const { return locks_ != nullptr; }

   private:
    VolumeLocks* locks_ = nullptr;
    std::string handle_;
  };

  // False in a boolean context when somebody else holds the volume.
  [[nodiscard]] Hold try_hold(const std::string& handle) {
    std::lock_guard lock(mutex_);
    return held_.insert(handle).second ? Hold(this, handle) : Hold();
  }

 private:
  void release(const std::string& handle) {
    std::lock_guard lock(mutex_);
    held_.erase(handle);
  }

  std::mutex mutex_;
  std::set<std::string> held_;
};

}  // namespace collage::reconcile
