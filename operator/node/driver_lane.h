#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "base/context.h"
#include "base/json.h"

namespace collage::node {

// The calls of one backend's driver, each on a thread of its own, so that storage that does not answer holds
// up its own backend alone. A call that has not come back at its deadline is left behind: until it does come
// back, whatever else is asked of this backend is answered UNAVAILABLE at once. Thread safe; a call that was
// left behind keeps what it works with, and outlives everything else.
class DriverLane {
 public:
  using Work = std::function<absl::StatusOr<base::Json>(const base::Context& context)>;
  struct Options {
    std::string where;  // "backend fast on node node-a"
    size_t at_once = 32;
    // How long after its deadline a call may take to end by itself.
    std::chrono::milliseconds grace = std::chrono::seconds(1);
  };
  explicit DriverLane(Options options);

  // `doing`: for messages ("create pvc-1"). `subject`: what must not be worked on twice at once, "" when that
  // is nothing. Ends soon after the context at the latest.
  absl::StatusOr<base::Json> run(const base::Context& context, const std::string& doing,
                                 const std::string& subject, Work work);
  // What is said of this backend while a call of it is overdue; "" when none is.
  std::string stuck() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace collage::node
