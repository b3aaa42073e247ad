#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/files.h"
#include "operator/mount/mounter.h"
#include "operator/node/agent.h"
#include "operator/node/backend_table.h"
#include "operator/node/journal.h"
#include "operator/node/recovery.h"
#include "operator/node/volume_locks.h"

namespace collage::node {

// What make_agent() fills in, and tests replace.
struct AgentParts {
  std::optional<base::FileLock> lock;  // of the state directory
  std::unique_ptr<mount::Mounter> mounter;
  std::string boot_id;
  Journal::Hook journal_hook;
  std::chrono::milliseconds recheck = std::chrono::seconds(30);
  std::chrono::milliseconds probe_timeout = std::chrono::seconds(10);
  // How long the mount table must be left alone before it is looked at.
  std::chrono::milliseconds settle = std::chrono::milliseconds(200);
};

// What is wrong at a path, in the words of AbnormalMount.
struct Trouble {
  std::string reason, message;
  friend bool operator==(const Trouble&, const Trouble&) = default;
};
inline constexpr char kMountLost[] = "MountLost";
inline constexpr char kMountReplaced[] = "MountReplaced";
inline constexpr char kNotResponding[] = "NotResponding";

// What the mount table says against the staging path or a target of a record.
Trouble trouble_of(const VolumeRecord& record, const std::string& path, const mount::MountTable& table);
Trouble replaced(const std::string& path);  // by a mount that we did not make
// To a pod whose mount was lost and is there again.
std::string made_again(const std::string& path);

// The state machine of journal.h, over a Mounter. Each step: take the volume's lock, compare the record with
// the mount table, note the intent, act, note the result. So a step that is repeated, by its caller or after
// a crash, finds what was done.
//
// Locks, in this order: a volume's lock; mutex_ (records and counts; never held during I/O); the callbacks'
// mutex.
class AgentImpl : public Agent {
 public:
  AgentImpl(const AgentOptions& options, AgentParts parts);
  ~AgentImpl() override;

  void set_backends(std::vector<BackendConfig> backends) override;
  absl::StatusOr<base::Json> carry_out(const base::Context& context, const std::string& backend,
                                       drivers::Verb verb, const base::Json& arguments) override;
  absl::Status stage(const base::Context& context, const StageRequest& request) override;
  absl::Status unstage(const base::Context& context, const std::string& handle,
                       const std::string& staging_path) override;
  absl::Status publish(const base::Context& context, const PublishRequest& request) override;
  absl::Status unpublish(const base::Context& context, const std::string& handle,
                         const std::string& target_path) override;
  absl::StatusOr<VolumeStats> stats(const base::Context& context, const std::string& handle,
                                    const std::string& path) override;
  absl::Status recover(const base::Context& context) override;
  std::vector<std::string> kinds_wanted() const override;
  const drivers::Kind* find_kind(const std::string& name) const override;
  void set_kind_state(const NodeStatus::KindState& state) override;
  NodeStatus status() const override;
  void on_change(std::function<void()> changed) override;
  void on_kinds_change(std::function<void()> changed) override;

 private:
  // stage.cpp
  absl::StatusOr<VolumeRecord> plan_stage(const StageRequest& request, const std::string& staging_path);
  absl::Status check_staged(const StageRequest& request, const VolumeRecord& record,
                            const std::string& staging_path, const mount::MountTable& table, bool& done);
  // For a stage of a volume that pods have already: what they have, and the device by which it is known.
  static void keep_publications(const VolumeRecord& before, VolumeRecord& record);
  absl::Status do_stage(const base::Context& context, VolumeRecord record, bool fresh,
                        mount::Blank blank = mount::Blank::kFormat);
  absl::Status roll_back(const base::Context& context, const VolumeRecord& record);
  absl::Status finish_unstage(const base::Context& context, const VolumeRecord& record);
  absl::StatusOr<std::string> lost_loop(const std::string& handle, const mount::MountTable& table);
  absl::Status unstage_unknown(const base::Context& context, const std::string& handle,
                               const std::string& staging_path, const mount::MountTable& table);
  // publish.cpp
  absl::StatusOr<VolumeRecord> restage(const base::Context& context, const PublishRequest& request,
                                       const VolumeRecord& before);
  absl::StatusOr<VolumeRecord> staged_record(const base::Context& context, const PublishRequest& request,
                                             const std::string& staging_path, const mount::MountTable& table);
  absl::Status check_targets(const PublishRequest& request, const VolumeRecord& record,
                             const std::string& target, bool read_only, const mount::MountTable& table,
                             bool& done);
  absl::Status finish_unpublish(const base::Context& context, VolumeRecord& record,
                                const std::string& target);
  // holds.cpp
  absl::StatusOr<base::Json> holds(const base::Context& context, const std::string& backend,
                                   const base::Json& arguments);
  std::string where_held(const std::string& handle, const mount::MountTable& table) const;
  // recover.cpp
  absl::Status recover_volume(const base::Context& context, VolumeRecord record,
                              const mount::MountTable& table);
  absl::Status recover_publications(const base::Context& context, VolumeRecord& record, Boot boot,
                                    const mount::MountTable& table);
  void find_unjournaled(const mount::MountTable& table);
  // heal.cpp
  void keep(std::stop_token stop);
  void look_after(const base::Context& context);
  void look_after(const base::Context& context, VolumeRecord record, const mount::MountTable& table);
  absl::Status check_still_here(const base::Context& context, const VolumeRecord& record);
  absl::Status heal_staging(const base::Context& context, VolumeRecord& record);
  absl::Status heal_target(const base::Context& context, VolumeRecord& record, const std::string& target);

  absl::Status not_ready(const BackendTable::Backend& backend) const;
  absl::StatusOr<VolumeLocks::Hold> begin(const base::Context& context, const std::string& handle);
  std::optional<VolumeRecord> find_record(const std::string& handle) const;
  absl::Status save(const VolumeRecord& record);  // to the disk, then to memory
  absl::Status save_if_possible(const base::Context& context, const VolumeRecord& record);  // memory always
  void forget(const base::Context& context, const std::string& handle);
  void set_trouble(const std::string& path, Trouble trouble);  // Trouble{}: none
  void witness(const std::string& path, bool there);
  void tell_change();
  void tell_kinds();

  const AgentOptions options_;
  const std::string boot_id_;
  const std::optional<base::FileLock> lock_;
  const std::unique_ptr<mount::Mounter> mounter_;
  Journal journal_;
  VolumeLocks locks_;

  mutable std::mutex mutex_;
  bool recovered_ = false;
  std::map<std::string, VolumeRecord> records_;  // by handle
  std::map<std::string, Trouble> troubles_;      // by path: what is wrong there now
  std::set<std::string> witnessed_;  // paths at which this process saw the volume: only these are healed
  std::map<std::string, std::string> unjournaled_;  // staging path -> kind: mounted, and not in the journal
  std::map<std::string, NodeStatus::KindState> kind_states_;
  int healed_ = 0;

  std::mutex callbacks_mutex_;
  std::function<void()> changed_, kinds_changed_;

  const std::chrono::milliseconds recheck_, settle_;
  BackendTable backends_;  // its threads call the above
  std::jthread keeper_;    // last: begun by recover()
};

// Absolute, without ".", ".." or "//": a path that may be mounted on. INVALID_ARGUMENT naming the field.
absl::Status check_path(const std::string& field, const std::string& path);

// Of a request: INVALID_ARGUMENT names the field.
absl::StatusOr<drivers::Handle> handle_of(const std::string& volume_id);

// How the device must be attached so that the volume can be used as the record says.
mount::Writing attach_writing(const VolumeRecord& record);

}  // namespace collage::node
