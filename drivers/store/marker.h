#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "drivers/driver.h"
#include "drivers/store/store_directory.h"

namespace collage::drivers {

// The file that tells a share or a disk from the empty directory it is mounted on: one line, its id.
inline constexpr char kMarkerFile[] = ".collage-system-id";

// The directory's id. NOT_FOUND when there is no marker, DATA_LOSS when it is not an id.
absl::StatusOr<std::string> read_marker(const StoreDirectory& directory);

// Gives the directory a new id. Of several nodes that do so at once one wins; each answers the winner's id.
// Never changes a marker.
absl::StatusOr<std::string> make_marker(const StoreDirectory& directory);

// Registers a cluster with the storage: one symbolic link a cluster, never removed, so that two clusters of
// one id see each other. Answers the UIDs of all clusters of that id, sorted.
inline constexpr char kClusterPrefix[] = ".collage-cluster.";
absl::StatusOr<std::vector<std::string>> register_cluster(const StoreDirectory& directory,
                                                          const ClusterIdentity& cluster);

// Which storage a directory has to be. Known from the first when the backend has an identity (`expected`),
// else learned from verify() or from the first look at it; then it stays. Thread safe.
class Marker {
 public:
  // What the storage is to a person, and what to do where another one is found.
  struct Words {
    std::string storage;  // "share"
    std::string remedy;   // "mount the share there"
  };
  Marker(const StoreDirectory& directory, std::string backend, Words words, std::string expected = "")
      : directory_(directory),
        backend_(std::move(backend)),
        words_(std::move(words)),
        expected_(std::move(expected)) {}

  // Is the directory that storage? Answers its id. Every call that touches it begins with this.
  // FAILED_PRECONDITION, naming both ids and the remedy, when it is not.
  absl::StatusOr<std::string> verify(StoreDirectory::Need need, const std::string& expected_now = "");
  std::string expected() const;

 private:
  absl::Status mismatch(absl::string_view found, const std::string& expected) const;

  const StoreDirectory& directory_;
  const std::string backend_;
  const Words words_;
  mutable std::mutex mutex_;
  std::string expected_;
};

}  // namespace collage::drivers
