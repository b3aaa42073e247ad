#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "drivers/driver.h"
#include "operator/engine/backend_spec.h"
#include "operator/engine/intents.h"

namespace collage::engine {

// A backend in use: immutable; a changed spec makes a new one, calls under way keep the old one.
struct Backend {
  BackendSpec spec;
  std::string uid;                          // of the StorageBackend
  std::string system_id;                    // "" before the first good probe
  std::shared_ptr<drivers::Driver> driver;  // the driver itself, or its proxy
  std::shared_ptr<Intents> intents;         // shared by all versions of the backend
  absl::Status ready;                       // why creates are refused at present; OK when they are not
};

// The backends of this process by name. Thread safe.
class Backends {
 public:
  std::shared_ptr<const Backend> get(const std::string& name) const;  // nullptr when unknown
  // NOT_FOUND 'StorageBackend "x" does not exist: ...'.
  absl::StatusOr<std::shared_ptr<const Backend>> require(const std::string& name) const;
  std::vector<std::shared_ptr<const Backend>> list() const;
  void set(std::shared_ptr<const Backend> backend);
  void remove(const std::string& name);

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const Backend>> backends_;
};

}  // namespace collage::engine
