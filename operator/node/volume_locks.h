#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "base/context.h"

namespace collage::node {

// One step at a time on a volume. Thread safe; outlives its holds.
class VolumeLocks {
 public:
  class Hold {
   public:
    Hold(Hold&& other) noexcept
        : locks_(std::exchange(other.locks_, nullptr)), volume_(std::move(other.volume_)) {}
    Hold& operator=(Hold&&) = delete;
    ~Hold();

   private:
    friend class VolumeLocks;
    Hold(VolumeLocks* locks, std::string volume) : locks_(locks), volume_(std::move(volume)) {}
    VolumeLocks* locks_;
    std::string volume_;
  };

  // ABORTED when the context ends before the volume is free.
  absl::StatusOr<Hold> acquire(const base::Context& context, const std::string& volume);
  // Without waiting: ABORTED when it is taken.
  absl::StatusOr<Hold> try_acquire(const std::string& volume);

 private:
  std::mutex mutex_;
  std::condition_variable_any freed_;
  std::set<std::string> held_;
};

}  // namespace collage::node
