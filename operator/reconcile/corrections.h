#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"

namespace collage::reconcile {

// Sets right what somebody else changes, without a fight: the first corrections of an object are made at
// once, as drift is mostly a person's slip; one that is changed back again and again is waited for, each time
// twice as long, and told of. Kept in memory: a new process begins afresh. Thread safe.
class Corrections {
 public:
  static constexpr int kAtOnce = 3;
  static constexpr std::chrono::seconds kFirstWait{10}, kLongestWait{300};
  static constexpr std::chrono::minutes kForgotten{10};  // without a correction

  // Zero: `object` may be set right now, and that counts. Else how long to leave it as it is.
  std::chrono::nanoseconds begin(const std::string& object, base::Clock::Monotonic now);
  // Zero when nobody contests the object; else how long until it is set right again, at least 1 ns.
  std::chrono::nanoseconds contested(const std::string& object, base::Clock::Monotonic now) const;

 private:
  struct Entry {
    int count = 0;
    base::Clock::Monotonic last{}, next{};
  };
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

// Why an object that we keep is to be written.
enum class Change {
  kNone,   // it is as it should be
  kOurs,   // what it should be has changed, or nobody looked yet
  kDrift,  // somebody else changed or removed it
};

// The corrections of one reconcile. Not thread safe.
class Settling {
 public:
  // expected: the objects were as they should be when last looked at, so what differs now is drift.
  Settling(Corrections& corrections, base::Clock::Monotonic now, bool expected)
      : corrections_(corrections), now_(now), expected_(expected) {}

  Change change(bool differs) const {
    return !differs ? Change::kNone : expected_ ? Change::kDrift : Change::kOurs;
  }
  // To be asked of every kept object, named as in "StorageClass fast": is it to be written now? `remedy` ends
  // the message, should somebody contest it.
  bool may_write(const std::string& object, Change change, const std::string& remedy);
  // For a person; "" when nobody contests anything.
  std::string contested() const;
  // Until what is left as it is may be set right; zero when nothing is.
  std::chrono::nanoseconds again() const { return again_; }

 private:
  Corrections& corrections_;
  const base::Clock::Monotonic now_;
  const bool expected_;
  std::vector<std::string> contested_;
  std::chrono::nanoseconds again_{0};
};

}  // namespace collage::reconcile
