#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "operator/node/agent.h"

namespace collage::node {

// Which storage each backend had on this node when it was first used, for kinds whose storage belongs to one
// node: so that the empty directory under a disk that is not mounted is never taken for it. A file a backend,
// {"version": 1, "block", "systemID"}. Not thread safe for one backend.
class BackendRecords {
 public:
  explicit BackendRecords(std::string directory) : directory_(std::move(directory)) {}

  // The system id noted for a backend of this name and block; "" when there is none.
  std::string find(const BackendConfig& config) const;
  absl::Status write(const BackendConfig& config, const std::string& system_id) const;
  // Forgets the backends that are not there any more.
  void keep_only(const std::vector<BackendConfig>& configs) const;

 private:
  std::string path_of(const std::string& backend) const;
  std::string directory_;
};

}  // namespace collage::node
