#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/json.h"
#include "drivers/kind.h"

// A StorageBackend as the program understands it: parsed, validated, defaulted. The same rules as the CRD's
// CEL, so that a host file and `kubectl apply` refuse the same things.
namespace collage::engine {

struct ClassSpec {  // one of spec.storageClasses
  std::string name;
  bool is_default = false;
  std::string reclaim_policy = "Delete";
  std::string binding_mode = "WaitForFirstConsumer";
  bool allow_expansion = false;
  std::map<std::string, std::string> parameters;
  std::vector<std::string> mount_options;
};

struct Limits {
  int64_t max_volumes = 0;  // 0: none
  int64_t max_volume_bytes = 0;
  int64_t max_provisioned_bytes = 0;
};

struct LabelSelector {
  std::map<std::string, std::string> match_labels;
  struct Expression {
    std::string key, op;
    std::vector<std::string> values;
  };
  std::vector<Expression> match_expressions;
  bool matches(const std::map<std::string, std::string>& labels) const;
};

enum class DeletionPolicy { kBlock, kOrphan, kDelete };

struct BackendSpec {
  std::string name;
  std::string kind;                         // of the one driver block
  std::shared_ptr<const base::Json> block;  // that block
  std::string credentials_secret, node_credentials_secret;
  std::vector<ClassSpec> storage_classes;
  Limits limits;
  std::optional<LabelSelector> allowed_namespaces;
  DeletionPolicy deletion_policy = DeletionPolicy::kBlock;
  std::string orphan_action = "Report";
  std::chrono::seconds orphan_after = std::chrono::hours(168);
  std::string on_mount_lost = "Report";
  bool paused = false;
};

// INVALID_ARGUMENT; every problem in one message, each naming its field and the remedy:
// "spec: exactly one driver block is needed, one of image, local; found none". Unknown fields are refused.
absl::StatusOr<BackendSpec> parse_backend_spec(const base::Json& object,
                                               const std::vector<drivers::Kind>& kinds);

// May a backend become another? INVALID_ARGUMENT when it would be other storage under the same name: another
// kind, another value of a field that identifies it ("spec.image.directory: cannot change: ...").
absl::Status check_backend_update(const BackendSpec& before, const BackendSpec& after);

}  // namespace collage::engine
