#pragma once

#include <chrono>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

#include "operator/engine/intents.h"

// One thread writes; callers wait for it.
//
//   begin() --+                                  +--> saved: `durable_` is what was written, callers go on
//   end() ----+--> `open_` (what should be) --> save
//   flush() --+      ^                           +--> failed, perhaps written: look; ours? go on, else fenced
//                    |                           +--> ABORTED: fenced until load()
//                    +-- load()
//
// Crash windows: killed before the save, nothing was begun, since begin() had not returned; killed after it,
// the entry is found by the next process; killed after end() and before the next save, the entry is found,
// and so is the volume's object.
namespace collage::engine {

struct Intents::State {
  using Entries = std::map<std::string, std::string>;

  // Somebody who waits: for an entry to be durable, or (no key) for everything pending to be written.
  struct Waiter {
    std::string key, value;
    std::optional<std::string> before;  // what was open under the key
    bool in_batch = false;              // the write under way holds it
    std::optional<absl::Status> result;
    std::stop_source done;  // ends its sleep
    bool is_flush() const { return key.empty(); }
  };

  State(IntentStore& store, std::string backend, const base::Clock& clock)
      : store_(store), backend_(std::move(backend)), clock_(clock) {}

  absl::Status load(const base::Context& context);
  absl::Status begin(const base::Context& context, const std::string& key, const std::string& value);
  void end(const std::string& key);
  absl::Status flush(const base::Context& context);

  // With mutex_ held.
  absl::Status usable() const;
  absl::Status may_begin(const std::string& key) const;
  bool surely_durable(const std::string& key, const std::string& value) const;
  absl::Status wait(std::unique_lock<std::mutex>& lock, const base::Context& context, Waiter& waiter);
  void retract(const Waiter& waiter);
  void finish(Waiter& waiter, absl::Status status);
  void finish_durable();
  void wake();
  void removal_pending();
  std::optional<base::Clock::Monotonic> next_due() const;
  void settle(IntentStore::Snapshot snapshot);
  void failed(const absl::Status& status);
  void fence();

  void run(std::stop_token stop);
  void write_once(std::stop_token stop);

  IntentStore& store_;
  const std::string backend_;
  const base::Clock& clock_;

  std::mutex io_mutex_;  // held over a call of store_; taken before mutex_
  std::mutex mutex_;
  bool loaded_ = false;
  bool fenced_ = false;
  bool closed_ = false;
  bool uncertain_ = false;           // a write failed that may have been done all the same
  Entries open_;                     // what should be stored
  Entries durable_;                  // what was stored last for certain
  std::set<std::string> inherited_;  // keys of an earlier process
  std::string version_;              // of durable_
  std::optional<Entries> attempt_;   // of the write under way, or of the one whose outcome is not known
  std::list<Waiter*> waiters_;       // whose context has not ended
  std::optional<base::Clock::Monotonic> flush_at_;  // finished keys leave then, if no other write takes them
  base::Clock::Monotonic next_write_ = base::Clock::Monotonic::min();
  std::condition_variable_any changed_;
  std::stop_source nap_;  // ends the writer's sleep
  std::jthread thread_;   // last: it uses all of the above
};

}  // namespace collage::engine
