#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/context.h"
#include "drivers/access.h"
#include "drivers/volume.h"

// The port that every storage driver implements.
//
// A driver has a control half, which talks to the provider, and a node half, which only describes how a node
// reaches a volume: it never mounts, formats or runs anything. It keeps no state of its own and is thread
// safe. Every call is idempotent: repeated after an answer that was lost, it has the effect of one. Calls on
// one volume may overlap only with reads.
//
// Errors are canonical codes, made by one function per provider:
//   INVALID_ARGUMENT    the request can never work; the message names the field
//   NOT_FOUND           no such volume (create: no such source)
//   ALREADY_EXISTS      create: the name exists with another size or kind
//   OUT_OF_RANGE        the size cannot be had: below the minimum, above required/limit
//   RESOURCE_EXHAUSTED  no room at present
//   FAILED_PRECONDITION the volume is in use, or attached to another node (the message names the holder)
//   PERMISSION_DENIED, UNAUTHENTICATED  the credentials
//   CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, ABORTED  not final: it may still be under way
//   every other code is final: nothing is in progress
namespace collage::drivers {

// Where the control half can run.
enum class ControlPlace {
  kAnywhere,   // an API over the network
  kAnyNode,    // on any node that reaches the storage (a shared directory)
  kOwnerNode,  // on the one node that has the volume (a local disk)
};

struct DriverInfo {
  std::string kind;  // "image": the name of the spec's block and the first word of the CSI driver's name
  std::string description;  // one sentence, for people
  ControlPlace control = ControlPlace::kAnywhere;
  std::vector<AccessMode> access_modes;
  std::vector<VolumeMode> volume_modes;
  std::vector<std::string> fs_types;  // the first is the default; empty when volumes come formatted (a share)
  std::vector<std::string> parameters;  // the class parameters that create() knows
  // Keys that the Secret of spec.credentialsSecret must hold, and that of spec.nodeCredentialsSecret. Empty:
  // the kind needs no such Secret, and refuses one.
  std::vector<std::string> credentials, node_credentials;
  int64_t minimum_bytes = 1;
  int64_t granularity_bytes = 1;  // sizes are rounded up to a multiple
  // A detach takes access away by itself: whatever the old holder still has open can write no more.
  bool detach_fences = false;
  // list() and inspect() tell the holder of every attached volume (Volume.attached_to): "" means attached
  // nowhere.
  bool tells_holders = false;
};

// Who uses a storage system: the name in the tags of volumes, and what tells two clusters of one name apart.
struct ClusterIdentity {
  std::string id;  // "" for nobody
  std::string uid;
  friend bool operator==(const ClusterIdentity&, const ClusterIdentity&) = default;
};

struct ProbeResult {
  std::string system_id;  // the storage system's own identity, stable for ever; "" when it has none
  std::vector<std::string>
      cluster_uids;  // every UID that was ever registered there under ProbeOptions.cluster.id
};

// Optional part: volumes are attached to one node at a time (or more, as the access mode has it).
class Attacher {
 public:
  virtual ~Attacher() = default;
  // Answers the publish context: what the node needs to find the volume. Attached to that node already: OK,
  // same answer. Attached to another: FAILED_PRECONDITION that names it.
  virtual absl::StatusOr<StringMap> attach(const base::Context& context, const std::string& volume_id,
                                           const std::string& node_id, const VolumeCapability& capability,
                                           bool read_only) = 0;
  // Not attached there, or no such volume: OK. node_id "": from all nodes.
  virtual absl::Status detach(const base::Context& context, const std::string& volume_id,
                              const std::string& node_id) = 0;
  // As detach(), of a holder that may still have the volume open: when this is OK, nothing that it writes
  // from then on reaches a later holder. UNIMPLEMENTED, and still attached: this storage cannot do that.
  // Drivers whose detach() fences by itself (info().detach_fences) are never asked.
  virtual absl::Status fence(const base::Context& context, const std::string& volume_id,
                             const std::string& node_id) = 0;
  // Why the machine of this node can write no more, as the provider knows it ("instance i-1 is terminated");
  // "" when the provider cannot tell, or it may well write. Never a guess.
  virtual absl::StatusOr<std::string> proof_of_absence(const base::Context& context,
                                                       const std::string& node_id) = 0;
};

// Optional part: how much room there is, seen from `where` (empty: all together).
class CapacityReporter {
 public:
  virtual ~CapacityReporter() = default;
  virtual absl::StatusOr<Capacity> capacity(const base::Context& context, const StringMap& parameters,
                                            const Topology& where) = 0;
};

class Driver {
 public:
  virtual ~Driver() = default;

  virtual const DriverInfo& info() const = 0;

  // Is the storage there, and are we let in? `initialize` allows to put a marker where there is none yet
  // (asked for once per backend, by the operator; of a kOwnerNode kind once per backend and node, by the
  // node); without it a missing marker is FAILED_PRECONDITION.
  struct ProbeOptions {
    bool initialize = false;
    std::string expected_system_id;  // not empty: another identity is FAILED_PRECONDITION
    // Not empty: is registered with the storage where the driver can, and never taken off again.
    ClusterIdentity cluster;
  };
  virtual absl::StatusOr<ProbeResult> probe(const base::Context& context, const ProbeOptions& options) = 0;

  virtual absl::StatusOr<Volume> create(const base::Context& context, const CreateRequest& request) = 0;
  // No such volume: OK.
  virtual absl::Status remove(const base::Context& context, const std::string& volume_id) = 0;
  // By the name given to create(). nullopt only when it is certain that there is none.
  virtual absl::StatusOr<std::optional<Volume>> find(const base::Context& context,
                                                     const std::string& name) = 0;
  virtual absl::StatusOr<Volume> inspect(const base::Context& context, const std::string& volume_id) = 0;
  // max_entries 0: the driver's choice. INVALID_ARGUMENT never for an old token: ABORTED, start over.
  virtual absl::StatusOr<VolumePage> list(const base::Context& context, const std::string& token,
                                          int max_entries) = 0;

  // The node half: no I/O. volume_context is Volume.context; publish_context is attach()'s answer ({} without
  // an Attacher).
  virtual absl::StatusOr<Access> access(const std::string& volume_id, const StringMap& volume_context,
                                        const StringMap& publish_context) const = 0;

  virtual Attacher* attacher() { return nullptr; }
  virtual CapacityReporter* capacity_reporter() { return nullptr; }
};

// "Attach", "RawBlock", "Capacity", ...: computed from the parts that are there, so they cannot disagree with
// the code.
std::vector<std::string> features(Driver& driver);
bool supports(const DriverInfo& info, VolumeMode mode);
bool supports(const DriverInfo& info, AccessMode mode);
// False for CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE and ABORTED: whatever was asked for may still be
// running.
bool is_final(const absl::Status& status);

// The names of CSI: "SINGLE_NODE_WRITER".
std::string to_string(AccessMode mode);
std::string to_string(VolumeMode mode);

// "image" -> "image.collage.storage": the CSI driver's name.
std::string csi_driver_name(const std::string& kind);
// "local" -> "local.collage.storage/node": the topology key whose value is the node that owns a volume
// (ControlPlace::kOwnerNode). The ids of such volumes are "<node>/<name>".
std::string node_topology_key(const std::string& kind);

// The size a volume gets: required_bytes rounded up to the granularity. INVALID_ARGUMENT when a size is zero
// or negative, OUT_OF_RANGE when it is below the minimum or does not fit under the limit.
absl::StatusOr<int64_t> volume_size(const DriverInfo& info, const CreateRequest& request);

// Checks one capability against info() alone: volume mode, access mode, fs type. INVALID_ARGUMENT that names
// the field.
absl::Status validate_capability(const DriverInfo& info, const VolumeCapability& capability);

// Checks class parameters against info() alone: a key that is not known is INVALID_ARGUMENT.
absl::Status validate_parameters(const DriverInfo& info, const StringMap& parameters);

// Checks a request against info() alone: name, capabilities, fs type, parameters, size. What every driver's
// create() begins with.
absl::Status validate_create(const DriverInfo& info, const CreateRequest& request);

}  // namespace collage::drivers
