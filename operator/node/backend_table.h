#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/context.h"
#include "drivers/driver.h"
#include "drivers/kind.h"
#include "operator/node/agent.h"

namespace collage::node {

// The backends of this node, each with its driver, and whether this node reaches its storage: probed when it
// comes or changes, and every 30 s, on threads of its own. A probe that does not come back (a dead share)
// leaves its thread behind, one a backend, and makes only this backend not ready. Thread safe.
class BackendTable {
 public:
  struct Backend {
    BackendConfig config;
    const drivers::Kind* kind = nullptr;
    std::shared_ptr<drivers::Driver> driver;  // nullptr: its configuration is refused, `message` says why
    bool ready = false;
    bool hung = false;  // its probe has not come back
    std::string message;
  };
  struct Options {
    std::string node_name;
    const std::vector<drivers::Kind>* kinds = nullptr;
    std::chrono::milliseconds recheck = std::chrono::seconds(30);
    std::chrono::milliseconds probe_timeout = std::chrono::seconds(10);
  };

  // `changed` is called, with no lock held, after the state of a backend changed; `tick` after each round of
  // probes.
  BackendTable(Options options, std::function<void()> changed, std::function<void()> tick);
  ~BackendTable();
  BackendTable(const BackendTable&) = delete;

  void set(std::vector<BackendConfig> configs);
  std::optional<Backend> find(const std::string& name) const;
  std::vector<BackendState> states() const;  // by name
  std::vector<std::string> kinds() const;    // sorted, each once
  void recheck();                            // soon

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace collage::node
