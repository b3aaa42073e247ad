#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "unit/testing/fake_apply.h"

namespace collage::testing {

// What the API server keeps, with its rules and without HTTP: resourceVersions and preconditions, uid,
// generation, finalizers, the status subresource, patches, server-side apply, and a history for watches.
// Thread safe.
class FakeStore {
 public:
  using Object = std::shared_ptr<const base::Json>;

  struct Kind {
    std::string group, version, plural, kind;
    bool namespaced = false;
    bool status = false;                 // has a status subresource
    bool versioned = false;              // a PUT without resourceVersion is refused
    std::string first_phase;             // status.phase of a new object, "" for none
    std::vector<std::string> immutable;  // JSON pointers: what an object is made with, it keeps
    std::string api_version() const { return group.empty() ? version : group + "/" + version; }
  };
  struct Change {
    uint64_t revision = 0;
    std::string type;  // "ADDED", "MODIFIED", "DELETED"
    Object object;     // with `revision` as its resourceVersion, deleted ones too
    Object before;     // nullptr when it was added
  };
  struct Answer {
    int status = 200;
    base::Json body;
  };
  struct Patch {
    std::string content_type;
    base::Json body;
    std::string manager;
    bool force = false;
  };
  using Hook = std::function<void(const Kind& kind, const Change& change)>;

  FakeStore();  // knows the kinds of operator/kube/resource.h
  void add_kind(Kind kind);
  void set_list_key(const std::string& field, const std::string& key);
  // Called after every change, on the thread that made it, with no lock held: it may write. In the order of
  // one thread's changes.
  void add_hook(Hook hook);

  const Kind* find_kind(const std::string& group, const std::string& version,
                        const std::string& plural) const;
  const Kind& kind_of(const base::Json& object) const;  // by apiVersion and kind; aborts when it is not known
  static std::string key_of(const std::string& name_space, const std::string& name);

  // As a client's calls. `key` as kube::Key::to_string().
  Object get(const Kind& kind, const std::string& key) const;
  std::vector<Object> list(const Kind& kind, const std::string& name_space,
                           uint64_t* revision = nullptr) const;
  Answer create(const Kind& kind, const std::string& name_space, base::Json object);
  Answer update(const Kind& kind, const std::string& key, const std::string& subresource, base::Json object);
  Answer patch(const Kind& kind, const std::string& key, const std::string& subresource, const Patch& patch);
  Answer remove(const Kind& kind, const std::string& key, const base::Json& options);

  // As the test's own hand: whole objects, status and all, without rules. Answers the object as it is stored.
  base::Json put(base::Json object);
  void erase(const Kind& kind, const std::string& key);

  uint64_t revision() const;
  // Changes after `revision`; nullopt when the history does not reach back so far.
  std::optional<std::vector<Change>> changes_since(const Kind& kind, uint64_t revision) const;
  void compact();  // forgets the history
  // Waits in real time until the revision is beyond `revision` or somebody calls wake().
  void wait_beyond(uint64_t revision, std::chrono::milliseconds timeout) const;
  void wake();

  static Answer error(int status, const std::string& reason, const std::string& message);

 private:
  struct Table {
    Kind kind;
    std::map<std::string, Object> objects;
    std::map<std::string, FieldOwners> owners;
    std::deque<Change> history;
  };
  struct Pending {
    Kind kind;
    Change change;
  };
  class Transaction;

  Table& table(const Kind& kind);
  const Table& table(const Kind& kind) const;
  Answer create_locked(Table& table, const std::string& name_space, base::Json object,
                       Transaction& transaction);
  Answer finish_update(Table& table, const std::string& key, const std::string& subresource, Object live,
                       base::Json next, Transaction& transaction);
  Answer apply_locked(Table& table, const std::string& key, const std::string& subresource,
                      const Patch& patch, Transaction& transaction);

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::map<std::string, Table> tables_;  // by "group/plural"
  ListKeys list_keys_{{"conditions", "type"}, {"ownerReferences", "uid"}, {"operations", "id"},
                      {"kinds", "name"},      {"backends", "name"},       {"storageClasses", "name"}};
  std::vector<Hook> hooks_;
  uint64_t revision_ = 1000;
  uint64_t compacted_ = 0;
  uint64_t wakes_ = 0;
};

}  // namespace collage::testing
