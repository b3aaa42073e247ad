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
#include "operator/node/driver_lane.h"

namespace collage::node {

// The backends of this node, each with its driver, and whether this node reaches its storage: probed when it
// comes or changes, and every 30 s. Every call of a driver goes through its lane, so that a dead share makes
// only its own backend not ready. Thread safe.
//
// Storage that belongs to this node alone (ControlPlace::kOwnerNode) gets its marker here, when the backend
// is first seen, and the marker's id is noted; from then on a directory without that marker is refused.
class BackendTable {
 public:
  struct Backend {
    BackendConfig config;
    const drivers::Kind* kind = nullptr;
    std::shared_ptr<drivers::Driver> driver;  // nullptr: its configuration is refused, `message` says why
    std::shared_ptr<DriverLane> lane;         // not nullptr where driver is not
    std::string system_id;                    // the one that its storage must have; "" when that is not known
    bool ready = false;
    std::string message;
    bool owned() const { return kind != nullptr && kind->info.control == drivers::ControlPlace::kOwnerNode; }
  };
  struct Options {
    std::string node_name;
    std::string records_directory;
    const std::vector<drivers::Kind>* kinds = nullptr;
    std::chrono::milliseconds recheck = std::chrono::seconds(30);
    std::chrono::milliseconds probe_timeout = std::chrono::seconds(10);
  };

  // `changed` is called, with no lock held, after the state of a backend changed.
  BackendTable(Options options, std::function<void()> changed);
  ~BackendTable();
  BackendTable(const BackendTable&) = delete;

  void set(std::vector<BackendConfig> configs);
  std::optional<Backend> find(const std::string& name) const;
  std::vector<BackendState> states() const;  // by name
  std::vector<std::string> kinds() const;    // sorted, each once
  void recheck();                            // soon

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace collage::node
