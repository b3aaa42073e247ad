#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace collage::base {

// A bounded pool of threads, started as work comes and kept up to `threads`. Work is run in the order given.
// Thread safe.
class Workers {
 public:
  Workers(std::string name, size_t threads);
  ~Workers();  // stops taking work, drops what has not begun, joins what has
  Workers(const Workers&) = delete;

  // False once stopping: the work was not taken.
  bool submit(std::function<void()> work);
  // Stops taking work, drops what has not begun, joins.
  void stop();
  size_t queued() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace collage::base
