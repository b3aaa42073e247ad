#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "operator/engine/intents.h"

namespace collage::testing {

// Intents kept in memory, with the faults of a real store. Thread safe. The version is a number that every
// write counts up.
class MemoryIntentStore final : public engine::IntentStore {
 public:
  using Entries = std::map<std::string, std::string>;

  absl::StatusOr<Snapshot> load(const base::Context&, const std::string& backend) override {
    std::unique_lock lock(mutex_);
    ++loads_;
    if (!load_faults_.empty()) {
      absl::Status fault = std::move(load_faults_.front());
      load_faults_.pop_front();
      if (!fault.ok()) return fault;
    }
    return snapshots_[backend];
  }

  absl::StatusOr<std::string> save(const base::Context& context, const std::string& backend,
                                   const Entries& entries, const std::string& version) override {
    std::unique_lock lock(mutex_);
    ++begun_;
    changed_.notify_all();
    if (!changed_.wait(lock, context.stop(), [&] { return gate_open_; }))
      return absl::CancelledError("stopped");
    Fault fault;
    if (!save_faults_.empty()) {
      fault = std::move(save_faults_.front());
      save_faults_.pop_front();
    }
    if (!fault.status.ok() && !fault.after_the_effect) return fault.status;
    Snapshot& stored = snapshots_[backend];
    if (stored.version != version)
      return absl::AbortedError(absl::StrCat("stored is version ", stored.version, ", not ", version));
    stored.entries = entries;
    stored.version = absl::StrCat(++version_);
    saved_.push_back(entries);
    changed_.notify_all();
    if (!fault.status.ok()) return fault.status;
    return stored.version;
  }

  // The next save (after those told before) fails before anything is stored, or after: the answer is lost.
  void fail_save(absl::Status status) { add_fault({std::move(status), false}); }
  void lose_answer(absl::Status status) { add_fault({std::move(status), true}); }
  void pass_save() { add_fault({}); }
  void fail_load(absl::Status status) {
    std::lock_guard lock(mutex_);
    load_faults_.push_back(std::move(status));
  }
  // As another process would.
  void write_behind(const std::string& backend, Entries entries) {
    std::lock_guard lock(mutex_);
    snapshots_[backend] = {std::move(entries), absl::StrCat(++version_)};
  }

  // While closed, saves wait at the door.
  void close_gate() {
    std::lock_guard lock(mutex_);
    gate_open_ = false;
  }
  void open_gate() {
    std::lock_guard lock(mutex_);
    gate_open_ = true;
    changed_.notify_all();
  }
  // Wait (at most 10 s of real time) until so many saves have begun, or were stored. False when they were
  // not.
  bool wait_begun(int count) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return begun_ >= count; });
  }
  bool wait_saved(size_t count) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return saved_.size() >= count; });
  }

  int begun() const {
    std::lock_guard lock(mutex_);
    return begun_;
  }
  int loads() const {
    std::lock_guard lock(mutex_);
    return loads_;
  }
  // What each save stored, in order.
  std::vector<Entries> saved() const {
    std::lock_guard lock(mutex_);
    return saved_;
  }
  Entries stored(const std::string& backend) const {
    std::lock_guard lock(mutex_);
    const auto found = snapshots_.find(backend);
    return found == snapshots_.end() ? Entries{} : found->second.entries;
  }

 private:
  struct Fault {
    absl::Status status;
    bool after_the_effect = false;
  };
  void add_fault(Fault fault) {
    std::lock_guard lock(mutex_);
    save_faults_.push_back(std::move(fault));
  }

  mutable std::mutex mutex_;
  mutable std::condition_variable_any changed_;
  std::map<std::string, Snapshot> snapshots_;
  std::deque<Fault> save_faults_;
  std::deque<absl::Status> load_faults_;
  std::vector<Entries> saved_;
  int version_ = 0;
  int begun_ = 0;
  int loads_ = 0;
  bool gate_open_ = true;
};

}  // namespace collage::testing
