#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
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
  // Why every operation on volumes that exist is refused; OK when none is. Not OK while the storage behind
  // the name says that it is another one than the volumes were made on.
  absl::Status identity;
};

// The backends of this process by name. Thread safe.
class Backends {
 public:
  std::shared_ptr<const Backend> get(const std::string& name) const;  // nullptr when unknown
  std::vector<std::shared_ptr<const Backend>> list() const;
  void set(std::shared_ptr<const Backend> backend);
  void remove(const std::string& name);

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const Backend>> backends_;
};

}  // namespace collage::engine
