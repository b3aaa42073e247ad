#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "operator/kube/client.h"
#include "operator/kube/config.h"
#include "unit/testing/fake_store.h"

namespace collage::testing {

// A call as the fake API server understood it.
struct ApiRequest {
  std::string verb;      // get, list, watch, create, update, patch, delete
  std::string resource;  // plural
  std::string subresource;
  std::string name_space, name;
  std::map<std::string, std::string> query;
  std::map<std::string, std::string> headers;
  std::string body;
  bool is_write() const { return verb != "get" && verb != "list" && verb != "watch"; }
};

// What goes wrong with one request.
struct Fault {
  enum class Kind {
    kNone,
    kAnswer,      // this answer, nothing is done
    kDropBefore,  // the connection is closed, nothing is done
    kDropAfter,   // it is done, then the connection is closed without an answer
    kHalfBody,    // it is done; half the answer (or half the first event of a watch), then the connection is
                  // closed
    kHalfJson,    // it is done; a whole answer (a whole line of a watch) whose JSON breaks off in the middle
  };
  Kind kind = Kind::kNone;
  int status = 0;
  std::string reason;  // of the Status object
  std::map<std::string, std::string> headers;
  std::chrono::milliseconds delay{0};  // before anything else, also for kNone
  std::function<void()> done;          // called after the effect, before the answer or the close

  static Fault answer(int status, std::string reason = "", std::map<std::string, std::string> headers = {}) {
    return {Kind::kAnswer, status, std::move(reason), std::move(headers)};
  }
  static Fault drop_before() { return {Kind::kDropBefore}; }
  static Fault drop_after(std::function<void()> done = {}) {
    return {.kind = Kind::kDropAfter, .done = std::move(done)};
  }
  static Fault half_body() { return {Kind::kHalfBody}; }
  static Fault half_json() { return {Kind::kHalfJson}; }
  static Fault wait(std::chrono::milliseconds delay) { return {.kind = Kind::kNone, .delay = delay}; }
};

// An API server over real HTTP on 127.0.0.1, in this process: get, list in pages, watch with bookmarks and a
// history that can be compacted, create, replace, merge patch, JSON patch, server-side apply, status
// subresource, delete with preconditions and finalizers. No admission, no defaulting beyond status.phase, no
// controllers: a test plays those with put(), update() and on_change(). Thread safe.
class FakeApiServer {
 public:
  FakeApiServer();
  ~FakeApiServer();

  kube::ClientConfig config() const;
  std::unique_ptr<kube::Client> client(const kube::Fence* fence = nullptr) const;
  FakeStore& store();

  // Looked at before each request, in the order added; the first fault that is not kNone (or has a delay)
  // counts.
  void on_request(std::function<Fault(const ApiRequest&)> hook);
  // The next `times` requests of that verb and resource ("" for any).
  void fail_next(const std::string& verb, const std::string& resource, Fault fault, int times = 1);
  void clear_faults();
  // After every change, on the thread that made it, which may write: where a test plays the other
  // controllers. "" for all.
  void on_change(const std::string& resource, std::function<void(const FakeStore::Change&)> hook);

  // Ends the watches that run now, as the server's timeout does.
  void end_watches();
  // Breaks their connections instead.
  void break_watches();
  // Watches neither tell anything nor end, until this is taken back; then they go on where they were.
  void silence_watches(bool silent);
  // Those that run now tell nothing any more and never end, as behind a dead connection; later ones are well.
  void stall_watches();
  void send_bookmarks();                                    // to all watches, once
  void bookmark_every(std::chrono::milliseconds interval);  // 60 s at first
  void compact();                                           // older resourceVersions get 410
  void expire_continue_tokens();                            // of lists under way: 410
  int open_watches(const std::string& resource = "") const;

  // As a person with kubectl or another controller would, without HTTP and without being counted.
  base::Json put(const base::Json& object);  // whole, status included; apiVersion and kind name the resource
  std::optional<base::Json> get(const kube::Resource& resource, const std::string& key) const;
  std::vector<base::Json> list(const kube::Resource& resource) const;
  // False when it is not there.
  bool update(const kube::Resource& resource, const std::string& key,
              const std::function<void(base::Json&)>& change);
  void remove(const kube::Resource& resource,
              const std::string& key);  // waits for finalizers, as kubectl delete --wait=false
  void erase(const kube::Resource& resource, const std::string& key);  // at once, whatever the finalizers

  // What arrived over HTTP, faults included.
  int count(const std::string& verb, const std::string& resource) const;
  int writes(const std::string& resource = "") const;  // events and leases are left out unless they are named
  std::vector<ApiRequest> requests(const std::string& verb = "", const std::string& resource = "") const;
  void reset_counts();
  int connections() const;

  // Real time, at most `timeout`; looks again after each change and every 10 ms. False when it did not come
  // true.
  bool wait_until(const std::function<bool()>& predicate,
                  std::chrono::milliseconds timeout = std::chrono::seconds(10)) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace collage::testing
