#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "operator/engine/backend_spec.h"

namespace collage::engine {

// How much of a backend's limits is used: by volumes that exist and by creates under way. Thread safe.
class Usage {
 public:
  struct Total {
    int64_t volumes = 0;
    int64_t bytes = 0;
  };
  // Replaces what is known of a volume (by its name); bytes < 0 removes it.
  void set(const std::string& backend, const std::string& volume_name, int64_t bytes);
  // Reserves room for a create, atomically with the check. Reserving again for the same name replaces.
  // RESOURCE_EXHAUSTED names the limit's field, what is used and what was asked for; OUT_OF_RANGE for a
  // single volume that is too large.
  absl::Status reserve(const std::string& backend, const Limits& limits, const std::string& volume_name,
                       int64_t bytes);
  // Ends a reservation. True when that gave room back; false when set() made it real, or there was none.
  bool release(const std::string& backend, const std::string& volume_name);
  Total total(const std::string& backend) const;

 private:
  struct Item {
    int64_t real = -1;      // of the volume that exists; -1: none
    int64_t reserved = -1;  // of the create under way; -1: none
    int64_t bytes() const;  // what it counts: the larger; -1: nothing
  };
  struct PerBackend {
    std::map<std::string, Item> items;
    Total total;  // of items, kept current
  };
  static void put(PerBackend& backend, const std::string& volume_name, Item item);

  mutable std::mutex mutex_;
  std::map<std::string, PerBackend> backends_;
};

}  // namespace collage::engine
