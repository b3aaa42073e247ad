#include "operator/kube/token.h"

#include <sys/stat.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "base/files.h"

namespace collage::kube::detail {
namespace {
constexpr std::chrono::seconds kLookEvery{1};
}  // namespace

TokenSource::TokenSource(base::Secret fixed, std::string file, const base::Clock& clock)
    : file_(std::move(file)), clock_(clock), token_(std::move(fixed)) {
  if (file_.empty()) return;
  read_locked();
  looked_ = clock_.now();
}

TokenSource::TokenSource(TokenSource&& other) noexcept
    : file_(other.file_),
      clock_(other.clock_),
      token_(std::move(other.token_)),
      seen_(other.seen_),
      looked_(other.looked_) {}

base::Secret TokenSource::current() {
  std::lock_guard lock(mutex_);
  if (!file_.empty() && clock_.now() - looked_ >= kLookEvery) {
    looked_ = clock_.now();
    if (stamp() != seen_) read_locked();
  }
  return token_;
}

bool TokenSource::reload() {
  std::lock_guard lock(mutex_);
  if (file_.empty()) return false;
  looked_ = clock_.now();
  return read_locked();
}

bool TokenSource::read_locked() {
  // Stamped before it is read: a change in between is seen the next time.
  const Stamp stamp_now = stamp();
  const auto content = base::read_file(file_, 64 << 10);
  if (!content.ok()) return false;
  seen_ = stamp_now;
  base::Secret token{std::string(absl::StripAsciiWhitespace(*content))};
  if (token.empty() || token == token_) return false;
  token_ = std::move(token);
  return true;
}

// Follows links: kubelet's projected files are links into a directory that it swaps.
TokenSource::Stamp TokenSource::stamp() const {
  struct stat info {};
  if (::stat(file_.c_str(), &info) != 0) return {};
  return {info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_ino};
}

}  // namespace collage::kube::detail
