#pragma once

#include <chrono>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "base/secret.h"

namespace collage::kube::detail {

// The bearer token: fixed, or of a file that kubelet replaces about once an hour. Thread safe.
class TokenSource {
 public:
  TokenSource(base::Secret fixed, std::string file, const base::Clock& clock = base::Clock::real());
  TokenSource(TokenSource&& other) noexcept;

  // Looks at the file's date at most once a second. A file that cannot be read leaves the last token in use.
  base::Secret current();
  // Reads the file at once. True when the token is another one now.
  bool reload();

 private:
  struct Stamp {
    int64_t seconds = 0, nanoseconds = 0;
    uint64_t inode = 0;
    friend bool operator==(const Stamp&, const Stamp&) = default;
  };
  bool read_locked();
  Stamp stamp() const;

  const std::string file_;
  const base::Clock& clock_;
  std::mutex mutex_;
  base::Secret token_;
  Stamp seen_;
  base::Clock::Monotonic looked_{};
};

}  // namespace collage::kube::detail
