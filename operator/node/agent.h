#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/context.h"
#include "base/json.h"
#include "drivers/kind.h"
#include "drivers/operation.h"

// What a node does, without any protocol: the CSI services (operator/csi) and the link to the cluster
// (operator/reconcile) both call this.
namespace collage::node {

struct BackendConfig {  // of a StorageBackend, as far as a node needs it
  std::string name;
  std::string kind;
  std::shared_ptr<const base::Json> block;
  std::string system_id;   // "" before the operator's first good probe
  std::string unreadable;  // why this version cannot read its spec; then kind and block are not known
  friend bool operator==(const BackendConfig& a, const BackendConfig& b) {
    return a.name == b.name && a.kind == b.kind && a.block == b.block && a.system_id == b.system_id &&
           a.unreadable == b.unreadable;
  }
};

struct BackendState {
  std::string name;
  bool ready = false;
  std::string message;  // why not
  friend bool operator==(const BackendState&, const BackendState&) = default;
};

struct PodRef {  // as kubelet names it in a publish; empty where it does not
  std::string name_space, name, uid;
  friend bool operator==(const PodRef&, const PodRef&) = default;
};

// A path of a volume at which what a pod finds is not what it should be.
struct AbnormalMount {
  std::string volume;  // handle
  std::string path;
  std::string reason;  // "MountLost", "MountReplaced", "ReadOnly", "NotResponding"
  std::string message;
  bool healed = false;            // MountLost: the mount was made again, for whoever looks from now on
  base::Clock::Wall healed_at{};  // when, with `healed`
  PodRef pod;
  friend bool operator==(const AbnormalMount&, const AbnormalMount&) = default;
};

struct NodeStatus {
  std::vector<BackendState> backends;
  struct KindState {
    std::string name;
    bool registered = false;
    std::string message;
    friend bool operator==(const KindState&, const KindState&) = default;
  };
  std::vector<KindState> kinds;
  int mounts_held = 0, mounts_stale = 0, mounts_healed = 0;
  std::vector<AbnormalMount> abnormal;  // by volume and path, at most kMostAbnormal
  static constexpr size_t kMostAbnormal = 64;
  friend bool operator==(const NodeStatus&, const NodeStatus&) = default;
};

struct StageRequest {
  std::string handle;  // "<backend>/<id>"
  std::string staging_path;
  drivers::VolumeCapability capability;
  drivers::StringMap volume_context, publish_context;
  bool read_only = false;
};

struct PublishRequest {
  std::string handle, staging_path, target_path;
  drivers::VolumeCapability capability;
  drivers::StringMap volume_context, publish_context;
  bool read_only = false;
  PodRef pod;
};

struct VolumeStats {
  int64_t total_bytes = 0, used_bytes = 0, available_bytes = 0;
  int64_t total_inodes = 0, used_inodes = 0, available_inodes = 0;  // 0 for a raw block volume
  bool abnormal = false;
  std::string message;
};

struct AgentOptions {
  std::string node_name;
  std::string state_directory;  // journal and locks, e.g. /var/lib/collage/node
  std::string mount_helper;     // path of collage-mount
  const std::vector<drivers::Kind>* kinds = nullptr;
};

// Thread safe; steps on one volume wait for each other, steps on different volumes do not.
class Agent {
 public:
  virtual ~Agent() = default;

  // The backends that exist now; called at start and on each change.
  virtual void set_backends(std::vector<BackendConfig> backends) = 0;
  // A call of the driver port that only a node can make; drivers::Verb::kHolds: a question to this very node.
  // UNAVAILABLE: this node cannot look now, and says nothing of any volume.
  virtual absl::StatusOr<base::Json> carry_out(const base::Context& context, const std::string& backend,
                                               drivers::Verb verb, const base::Json& arguments) = 0;

  // CSI's node steps, idempotent. Codes as the CSI specification has them for each call.
  virtual absl::Status stage(const base::Context& context, const StageRequest& request) = 0;
  virtual absl::Status unstage(const base::Context& context, const std::string& handle,
                               const std::string& staging_path) = 0;
  virtual absl::Status publish(const base::Context& context, const PublishRequest& request) = 0;
  virtual absl::Status unpublish(const base::Context& context, const std::string& handle,
                                 const std::string& target_path) = 0;
  virtual absl::StatusOr<VolumeStats> stats(const base::Context& context, const std::string& handle,
                                            const std::string& path) = 0;

  // Reads the journal, compares it with the mount table, sets right what is positively wrong. Once, before
  // any step.
  virtual absl::Status recover(const base::Context& context) = 0;

  // Kinds that must be served now: those of a backend, and those of a volume that the journal holds.
  virtual std::vector<std::string> kinds_wanted() const = 0;
  // nullptr when this version has no such kind (a journal may hold one).
  virtual const drivers::Kind* find_kind(const std::string& name) const = 0;
  virtual void set_kind_state(const NodeStatus::KindState& state) = 0;  // told by the registration
  virtual NodeStatus status() const = 0;
  // Called after kinds_wanted() or status() may have changed; must not block. One function: nullptr, or
  // another, takes its place, and when that returns the former one runs no more.
  virtual void on_change(std::function<void()> changed) = 0;
  // The same for kinds_wanted() alone: for who serves the kinds.
  virtual void on_kinds_change(std::function<void()> changed) = 0;
};

absl::StatusOr<std::unique_ptr<Agent>> make_agent(const AgentOptions& options);

}  // namespace collage::node
