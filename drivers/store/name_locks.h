#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "base/context.h"

namespace collage::drivers {

// One holder a name, within this process. It only saves work (two threads that build the same volume): what
// is on the disk is safe without it. Outlives its holds. Thread safe.
class NameLocks {
 public:
  class Hold {
   public:
    Hold(Hold&& other) noexcept;
    Hold& operator=(Hold&&) = delete;
    ~Hold();

   private:
    friend class NameLocks;
    Hold(NameLocks* locks, std::string name);
    NameLocks* locks_;
    std::string name_;
  };

  // Waits until the name is free, or the context ends: its status.
  absl::StatusOr<Hold> acquire(const base::Context& context, const std::string& name);
  std::optional<Hold> try_acquire(const std::string& name);

 private:
  std::mutex mutex_;
  std::condition_variable_any freed_;
  std::set<std::string> held_;
};

}  // namespace collage::drivers
