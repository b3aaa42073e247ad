#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "base/context.h"
#include "operator/kube/queue.h"

namespace collage::kube {

// How a reconcile ended. One metric label each.
struct Done {};
struct RequeueAfter {
  std::chrono::milliseconds delay;
};
struct Retry {  // with the key's back-off
  absl::Status status;
};
struct Terminal {  // nothing to do until the object changes
  absl::Status status;
};
using Outcome = std::variant<Done, RequeueAfter, Retry, Terminal>;

// A queue and the threads that reconcile its keys. The request is a key, never an event: reconcile looks at
// the present state.
class Controller {
 public:
  using Reconcile = std::function<Outcome(const base::Context& context, const std::string& key)>;

  Controller(std::string name, int workers, Reconcile reconcile,
             const base::Clock& clock = base::Clock::real());
  ~Controller();

  void enqueue(const std::string& key);
  void enqueue_after(const std::string& key, std::chrono::nanoseconds delay);
  void start(const base::Context& context);
  // Stops handing out keys and waits for the reconciles under way.
  void stop();
  const std::string& name() const;
  size_t depth() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace collage::kube
