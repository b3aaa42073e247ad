#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "operator/kube/controller.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

struct SurveyOptions {
  // After the operator's start, and after something that may have left a volume behind. Spread out by as much
  // again.
  std::chrono::milliseconds after = std::chrono::seconds(30);
  // Where the operator itself asks the storage. Through a node a list costs writes to the API server: there
  // it is done on the occasions above, and from time to time while there are orphans or the list fails, so
  // that an idle cluster stays idle.
  std::chrono::milliseconds every = std::chrono::minutes(5);
  std::chrono::milliseconds every_through_nodes = std::chrono::hours(1);
  std::chrono::milliseconds timeout = std::chrono::minutes(1);
};

// What a backend holds that nobody refers to.
struct Orphans {
  size_t count = 0;
  std::vector<std::string> names;  // handles, sorted; the first few
  friend bool operator==(const Orphans&, const Orphans&) = default;
};

// Volumes with our cluster's tag that neither a PersistentVolume (`handles`) nor a create under way
// (`claim_uids`) refers to.
Orphans find_orphans(const std::vector<drivers::Volume>& volumes, const std::string& backend,
                     const std::string& cluster_id, const std::set<std::string>& handles,
                     const std::set<std::string>& claim_uids);

// Holds what a storage system lists against what the cluster knows: counts orphans, and finds attachments
// that the storage knows nothing of (contract 55). Removes and changes nothing. Thread safe.
class VolumeSurvey {
 public:
  // `changed` is called when the result for a backend is another one.
  VolumeSurvey(World& world, SurveyOptions options, std::function<void(const std::string& backend)> changed);

  void on_lost_attachment(std::function<void(const std::string&)> lost) { lost_ = std::move(lost); }
  void start(const base::Context& context);
  void stop() { controller_.stop(); }
  // Looks at it soon: the backend is new to this process, or a volume may have been left behind.
  void soon(const std::string& backend);
  // nullopt until the first list of this process was read to its end.
  std::optional<Orphans> orphans(const std::string& backend) const;
  void forget(const std::string& backend);

 private:
  kube::Outcome run(const base::Context& context, const std::string& name);
  std::set<std::string> handles(const std::string& backend) const;
  std::set<std::string> attached_now(const std::string& backend) const;
  void check_attachments(const std::string& backend, const std::set<std::string>& attached,
                         const std::vector<drivers::Volume>& volumes);

  World& world_;
  const SurveyOptions options_;
  const std::function<void(const std::string&)> changed_;
  std::function<void(const std::string&)> lost_;
  mutable std::mutex mutex_;
  std::map<std::string, Orphans> orphans_;
  kube::Controller controller_;
};

}  // namespace collage::reconcile
