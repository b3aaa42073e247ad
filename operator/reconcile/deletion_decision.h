#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "operator/engine/backend_spec.h"

// How a StorageBackend ends, as a pure function of what is left of it.
namespace collage::reconcile {

struct VolumeLeft {
  std::string name;  // of the PersistentVolume
  bool bound = false;
  bool retained = false;  // Released, and its policy is not Delete: nothing removes it by itself
  std::vector<std::string> attached_to;  // nodes
};

struct DeletionFacts {
  engine::DeletionPolicy policy = engine::DeletionPolicy::kBlock;
  std::vector<VolumeLeft> volumes;
  std::vector<std::string> creates;     // open intents, as "<namespace>/<claim>"
  std::vector<std::string> unreadable;  // open intents that cannot be read, as their keys
  std::string intents;                  // the ConfigMap that holds these
  // Why nothing may be removed on the word of the policy alone: another cluster of our id, storage that is
  // another one. OK when nothing speaks against it.
  absl::Status identity;
};

struct DeletionVerdict {
  bool done = false;    // nothing holds the backend any more
  std::string message;  // what it waits for, with counts, names and the remedy
  // Retained volumes that policy Delete may have removed, once each is known to be ours.
  std::vector<std::string> to_remove;
};

DeletionVerdict decide_deletion(const DeletionFacts& facts);

// "a, b, c and 7 more".
std::string some_of(const std::vector<std::string>& names, size_t most = 5);

}  // namespace collage::reconcile
