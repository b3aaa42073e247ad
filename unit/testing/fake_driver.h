#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "drivers/kind.h"
#include "drivers/operation.h"

namespace collage::testing {

// "fake": both volume modes, every access mode of one node, ext4 and xfs, parameter "speed", sizes in whole
// MiB.
drivers::DriverInfo fake_info();

struct FakeDriverOptions {
  drivers::DriverInfo info = fake_info();
  bool attaches = true;
  bool reports_capacity = true;
  std::string node;  // with ControlPlace::kOwnerNode: ids are "<node>/<name>"; else "vol-<name>"
  int64_t total_bytes = int64_t{1} << 40;
  std::string system_id = "fake-system";  // "" before a probe that may initialize
};

// A whole driver in memory, as the port promises it: idempotent, thread safe. Counts calls, and fails when
// told to.
class FakeDriver final : public drivers::Driver,
                         private drivers::Attacher,
                         private drivers::CapacityReporter {
 public:
  // `what` is the volume's name (create, find) or id, "" for others. Anything but OK is answered in place of
  // the result.
  using Hook =
      std::function<absl::Status(const base::Context& context, drivers::Verb verb, const std::string& what)>;

  explicit FakeDriver(FakeDriverOptions options = {});

  // Called before the effect, and after it (an error then is an answer that was lost). Not while calls are
  // under way.
  void before(Hook hook);
  void after(Hook hook);
  // The next calls of this verb end so, before or after the effect.
  void fail_before(drivers::Verb verb, absl::Status status, int times = 1);
  void fail_after(drivers::Verb verb, absl::Status status, int times = 1);

  // Fences from now on, as a share that can clone does.
  void can_fence(bool can) { can_fence_ = can; }
  // What the provider says of the machine of this node id.
  void set_absence(const std::string& node_id, const std::string& proof) {
    std::lock_guard lock(mutex_);
    absence_[node_id] = proof;
  }

  int calls(drivers::Verb verb) const;
  std::vector<drivers::CreateRequest> create_requests() const;  // every call's, also of those that failed
  std::map<std::string, drivers::Volume> volumes() const;       // by id
  void put(drivers::Volume volume);                             // as if made by others
  // The content of a volume, as the application that uses it sees it: lost with the volume, "" at first.
  void write(const std::string& id, const std::string& content);
  std::string read(const std::string& id) const;
  void erase(const std::string& id);                             // likewise
  std::string system_id() const;                                 // "" before it was initialized
  void set_system_id(const std::string& id);                     // the storage was swapped for another
  void register_other(const drivers::ClusterIdentity& cluster);  // another cluster's operator came

  const drivers::DriverInfo& info() const override { return options_.info; }
  drivers::Attacher* attacher() override { return options_.attaches ? this : nullptr; }
  drivers::CapacityReporter* capacity_reporter() override {
    return options_.reports_capacity ? this : nullptr;
  }
  absl::StatusOr<drivers::ProbeResult> probe(const base::Context& context,
                                             const ProbeOptions& options) override;
  absl::StatusOr<drivers::Volume> create(const base::Context& context,
                                         const drivers::CreateRequest& request) override;
  absl::Status remove(const base::Context& context, const std::string& volume_id) override;
  absl::StatusOr<std::optional<drivers::Volume>> find(const base::Context& context,
                                                      const std::string& name) override;
  absl::StatusOr<drivers::Volume> inspect(const base::Context& context,
                                          const std::string& volume_id) override;
  absl::StatusOr<drivers::VolumePage> list(const base::Context& context, const std::string& token,
                                           int max_entries) override;
  absl::StatusOr<drivers::Access> access(const std::string& volume_id,
                                         const drivers::StringMap& volume_context,
                                         const drivers::StringMap& publish_context) const override;

 private:
  absl::StatusOr<drivers::StringMap> attach(const base::Context& context, const std::string& volume_id,
                                            const std::string& node_id,
                                            const drivers::VolumeCapability& capability,
                                            bool read_only) override;
  absl::Status detach(const base::Context& context, const std::string& volume_id,
                      const std::string& node_id) override;
  absl::Status fence(const base::Context& context, const std::string& volume_id,
                     const std::string& node_id) override;
  absl::StatusOr<std::string> proof_of_absence(const base::Context& context,
                                               const std::string& node_id) override;
  absl::StatusOr<drivers::Capacity> capacity(const base::Context& context,
                                             const drivers::StringMap& parameters,
                                             const drivers::Topology& where) override;

  struct Fault {
    drivers::Verb verb;
    bool after;
    absl::Status status;
  };
  absl::Status enter(const base::Context& context, drivers::Verb verb, const std::string& what);
  absl::Status leave(const base::Context& context, drivers::Verb verb, const std::string& what);
  absl::Status fault(drivers::Verb verb, bool after);
  std::string id_of(const std::string& name) const;
  absl::StatusOr<drivers::Volume> create_locked(const drivers::CreateRequest& request);
  int64_t used() const;

  FakeDriverOptions options_;
  Hook before_, after_;
  mutable std::mutex mutex_;
  std::map<std::string, drivers::Volume> volumes_;
  std::map<std::string, std::string> contents_;  // by id
  std::vector<drivers::CreateRequest> requests_;
  std::map<drivers::Verb, int> calls_;
  std::vector<Fault> faults_;
  std::map<std::string, std::string> absence_;
  std::atomic<bool> can_fence_ = false;
  std::vector<drivers::ClusterIdentity> clusters_;
};

// A kind whose make() hands out the driver set last; every driver made so is that one. A node name in its
// config is ignored.
drivers::Kind fake_kind(const FakeDriverOptions& options = {});
void set_fake_driver(std::shared_ptr<FakeDriver> driver);

}  // namespace collage::testing
