#pragma once

#include <atomic>
#include <deque>
#include <mutex>

#include "unit/testing/fake_api_server.h"
#include "unit/testing/imposter.h"

namespace collage::testing {

// The inside of FakeApiServer, shared by its files.
struct FakeApiServer::State {
  using Exchange = Imposter::Exchange;
  struct Snapshot {  // a list whose further pages may still be asked for
    std::vector<FakeStore::Object> objects;
    size_t next = 0;
    uint64_t revision = 0;
  };
  struct Scripted {
    std::string verb, resource;
    Fault fault;
    int times = 0;
  };
  struct Watching;  // one watch under way

  State();

  void handle(const Imposter::Request& request, Exchange& exchange);
  void dispatch(const ApiRequest& request, const FakeStore::Kind& kind, const Fault& fault,
                Exchange& exchange);
  FakeStore::Answer perform(const ApiRequest& request, const FakeStore::Kind& kind);
  FakeStore::Answer list(const ApiRequest& request, const FakeStore::Kind& kind);
  void watch(const ApiRequest& request, const FakeStore::Kind& kind, const Fault& fault, Exchange& exchange);
  bool send_initial(Watching& watching, const ApiRequest& request, const FakeStore::Kind& kind);
  bool send_changes(Watching& watching, const ApiRequest& request, const FakeStore::Kind& kind);
  Fault fault_for(const ApiRequest& request);

  FakeStore store;
  std::atomic<bool> stopping = false;

  mutable std::mutex mutex;
  std::vector<std::function<Fault(const ApiRequest&)>> request_hooks;
  std::vector<Scripted> scripted;
  std::vector<ApiRequest> requests;
  std::map<std::string, Snapshot> snapshots;  // by continue token
  std::map<std::string, int> watches;         // under way, by resource
  uint64_t next_token = 0;

  std::atomic<uint64_t> end_epoch = 0;       // raised to end the watches that run now
  std::atomic<uint64_t> break_epoch = 0;     // to break them
  std::atomic<uint64_t> stall_epoch = 0;     // to silence them for ever
  std::atomic<uint64_t> bookmark_epoch = 0;  // to have a bookmark sent
  std::atomic<bool> silent = false;
  std::atomic<int64_t> bookmark_ms = 60000;

  std::unique_ptr<Imposter> imposter;  // last: its threads use the rest
};

}  // namespace collage::testing
