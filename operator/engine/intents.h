#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/context.h"

// "This create has begun", durably, before the provider is called: a process killed at any instant leaks no
// volume.
namespace collage::engine {

// Where intents are kept: a ConfigMap a backend on Kubernetes, a file elsewhere.
class IntentStore {
 public:
  struct Snapshot {
    std::map<std::string, std::string> entries;  // key -> value, at most 512 bytes each
    std::string version;                         // "" when nothing was stored yet
  };
  virtual ~IntentStore() = default;
  virtual absl::StatusOr<Snapshot> load(const base::Context& context, const std::string& backend) = 0;
  // Writes all entries if the stored version is still `version`; answers the new one. ABORTED when somebody
  // else wrote (this process leads no more, or must load again).
  virtual absl::StatusOr<std::string> save(const base::Context& context, const std::string& backend,
                                           const std::map<std::string, std::string>& entries,
                                           const std::string& version) = 0;
};

// The intents of one backend, by group commit: one write in flight; at once when idle; under load at most 20
// writes a second, each taking all that came meanwhile. Finished keys leave with the next write. Thread safe.
class Intents {
 public:
  static constexpr size_t kMaxEntries = 1000;
  static constexpr size_t kMaxValueBytes = 512;
  static constexpr std::chrono::milliseconds kWriteInterval{50};  // between the beginnings of two writes
  static constexpr std::chrono::milliseconds kFlushAfter{2000};

  Intents(IntentStore& store, std::string backend, const base::Clock& clock = base::Clock::real());
  ~Intents();

  // Loads what an earlier process left. Before begin(). Repeat on error.
  absl::Status load(const base::Context& context);
  bool loaded() const;
  std::map<std::string, std::string> open() const;

  // Returns when the intent is durable (at once when the same key and value is durable already).
  // RESOURCE_EXHAUSTED when full, unless the key is there already; FAILED_PRECONDITION once closed.
  absl::Status begin(const base::Context& context, const std::string& key, const std::string& value);
  // The volume object exists, or it is certain that there is no volume. Returns at once; gone with the next
  // write, or after `flush_after` of idleness.
  void end(const std::string& key);
  // How many more can begin.
  size_t room() const;
  // Nothing begins any more, if nothing is open: else false, and nothing changes.
  bool close();
  // Writes what is pending. At shutdown.
  absl::Status flush(const base::Context& context);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace collage::engine
