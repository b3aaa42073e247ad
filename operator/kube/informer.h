#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "base/context.h"
#include "operator/kube/client.h"
#include "operator/kube/objects.h"

// A local copy of one resource, kept current by list and watch.
//
//   Empty --list--> Listed --watch--> Watching --stream ends--> Watching (resume from the last
//   resourceVersion, back-off with jitter)
//                     ^                  |--410 Gone--> Relisting (paged; generation mark; keys not seen are
//                     deleted) --> Watching
//
// Guarantees: has_synced() after the first whole list; handlers see a key after every change of its object,
// with the store already updated; one handler call at a time, in the order of the changes. A relist replaces
// key by key, no second map is built; keys that vanished while no watch ran are reported as deleted at its
// end.
//
// Our own writes (observe) may run ahead of the watch or behind it. resourceVersions of one resource are
// numbers that grow with time, so what is older than the copy is dropped, and a write older than the position
// of the watch whose key is not in the copy has been deleted since: it is dropped too, as no event would ever
// take it out again.
namespace collage::kube {

// The part that does not depend on the object's type.
class ReflectorSink {
 public:
  virtual ~ReflectorSink() = default;
  virtual void begin_relist() = 0;
  // Everything up to this resourceVersion has been handed over (a bookmark), or will have been at end_relist
  // (a list).
  virtual void position(const std::string& resource_version) { (void)resource_version; }
  virtual absl::Status upsert(
      const base::Json& object) = 0;  // an object that cannot be parsed is logged and skipped by the caller
  virtual void remove(const base::Json& object) = 0;
  virtual void end_relist() = 0;
};

struct ReflectorOptions {
  ListOptions selector;
  // A silent watch is dropped and resumed where it was. The API server sends a bookmark about once a minute.
  std::chrono::milliseconds idle_timeout = std::chrono::seconds(150);
  std::chrono::milliseconds backoff_initial = std::chrono::milliseconds(200);
  std::chrono::milliseconds backoff_max = std::chrono::seconds(30);
};

// A resourceVersion as a number, 0 when it is none (then nothing is compared).
uint64_t version_number(std::string_view resource_version);

// Runs list and watch until the context stops. Blocking: one thread each.
void run_reflector(const base::Context& context, Client& client, const Resource& resource,
                   const ReflectorOptions& options, ReflectorSink& sink);

template <typename T>
class Informer final : public ReflectorSink {
 public:
  using Object = std::shared_ptr<const T>;
  // before == nullptr: added; after == nullptr: deleted. Called on the informer's thread, must not block.
  using Handler = std::function<void(const Object& before, const Object& after)>;
  // Index values of an object, "" entries are left out.
  using IndexFunction = std::function<std::vector<std::string>(const T&)>;

  explicit Informer(Client& client, ReflectorOptions options = {})
      : client_(client), options_(std::move(options)) {}
  ~Informer() override { stop(); }

  // Before start() only.
  void add_handler(Handler handler) { handlers_.push_back(std::move(handler)); }
  void add_index(std::string name, IndexFunction function);

  void start(const base::Context& context);
  void stop();
  bool has_synced() const;
  // Blocks; the context's status when it ended first.
  absl::Status wait_synced(const base::Context& context) const;

  Object get(const std::string& key) const;  // nullptr when there is none; key as Key::to_string()
  std::vector<Object> list() const;
  std::vector<Object> by_index(const std::string& index, const std::string& value) const;
  size_t size() const;
  // Until every change up to this resourceVersion is in the copy; false when that takes longer than this.
  bool wait_for(uint64_t version, std::chrono::milliseconds at_most, const std::stop_token& stop) const;
  // Puts the answer of our own write into the copy at once, unless the copy is already newer. Handlers run,
  // on this thread: never call it from a handler.
  void observe(const base::Json& object);
  // As observe(), for a delete of ours that left nothing behind (no finalizer). An event on its way may bring
  // the object back for a moment; the one of the deletion follows it.
  void forget(const std::string& key);

  void begin_relist() override;
  absl::Status upsert(const base::Json& object) override;
  void remove(const base::Json& object) override;
  void end_relist() override;
  void position(const std::string& resource_version) override;

 private:
  struct Entry {
    Object object;
    uint32_t seen = 0;  // the list generation that saw it last
  };
  using Entries = std::unordered_map<std::string, Entry>;  // the address of an entry stays while it is there
  struct Index {
    IndexFunction function;
    std::unordered_map<std::string, absl::flat_hash_set<const Entry*>> entries;
  };
  enum class Source { kList, kWatch, kOwnWrite };
  absl::Status put(const base::Json& object, Source source);
  void erase(typename Entries::iterator entry, std::unique_lock<std::mutex>& lock);
  void index_add(const Entry& entry);
  void index_remove(const Entry& entry);
  void notify(const Object& before, const Object& after);

  Client& client_;
  const ReflectorOptions options_;
  std::vector<Handler> handlers_;
  // Held over a change and its handlers, so that they run in order. Taken before mutex_, which guards the
  // rest.
  std::mutex change_mutex_;
  mutable std::mutex mutex_;
  mutable std::condition_variable_any synced_changed_;
  Entries entries_;
  std::map<std::string, Index> indexes_;
  void advance(uint64_t position);  // with mutex_ held
  uint64_t position_ = 0;           // every change up to here is in the copy; 0 when unknown
  mutable int waiting_ = 0;         // in wait_for()
  mutable std::condition_variable_any position_changed_;
  uint32_t generation_ = 0;
  bool listing_ = false;
  bool synced_ = false;
  std::jthread thread_;
};

}  // namespace collage::kube

#include "operator/kube/informer.inl"
