#include "operator/cli/doctor.h"

#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/files.h"
#include "base/json.h"
#include "base/random.h"
#include "base/status.h"
#include "base/strings.h"

namespace collage::cli {
namespace {

using base::Json;
using Grade = Finding::Grade;

constexpr char kAgents[] = "app.kubernetes.io/part-of=collage,app.kubernetes.io/component=node";

class Examination {
 public:
  Examination(const base::Context& context, kube::Client& client, const DoctorOptions& options)
      : context_(context), client_(client), options_(options) {}

  std::vector<Finding> run() {
    // Without the first of these the others say nothing.
    if (api_server() && resources()) {
      leader();
      agents();
      nodes();
      backends();
    }
    if (!options_.volume.empty()) volume();
    return std::move(findings_);
  }

 private:
  void good(std::string subject, std::string message) {
    findings_.push_back({Grade::kGood, std::move(subject), std::move(message)});
  }
  void note(std::string subject, std::string message) {
    findings_.push_back({Grade::kNote, std::move(subject), std::move(message)});
  }
  bool bad(std::string subject, std::string message) {
    findings_.push_back({Grade::kBad, std::move(subject), std::move(message)});
    return false;
  }

  absl::StatusOr<std::vector<Json>> list(const kube::Resource& resource, kube::ListOptions selector = {}) {
    std::vector<Json> items;
    auto listed = client_.list(context_, resource, selector, [&](Json& item) {
      items.push_back(std::move(item));
      return absl::OkStatus();
    });
    if (!listed.ok()) return listed.status();
    return items;
  }

  bool api_server();
  bool resources();
  void leader();
  void agents();
  void nodes();
  void backends();
  void volume();

  const base::Context& context_;
  kube::Client& client_;
  const DoctorOptions& options_;
  std::vector<Json> backends_, nodes_;
  std::vector<Finding> findings_;
};

bool Examination::api_server() {
  auto version = client_.version(context_);
  if (!version.ok()) return bad("API server", std::string(version.status().message()));
  good("API server", base::get_string(*version, "/gitVersion"));
  return true;
}

bool Examination::resources() {
  bool there = true;
  for (auto [resource, items] :
       {std::pair(&kube::kStorageBackends, &backends_), std::pair(&kube::kStorageNodes, &nodes_)}) {
    auto listed = list(*resource);
    if (listed.ok()) {
      *items = *std::move(listed);
      continue;
    }
    // The version is told to anybody: this is the first thing that needs credentials.
    if (absl::IsUnauthenticated(listed.status())) {
      return bad("API server",
                 absl::StrCat("it refuses the credentials of the kubeconfig or the ServiceAccount: ",
                              listed.status().message()));
    }
    there = bad(base::cat("CRD ", resource->plural, ".", resource->group),
                absl::IsNotFound(listed.status())
                    ? "the API server does not know it: kubectl apply --server-side -f crds/"
                    : std::string(listed.status().message()));
  }
  if (there) good("CRDs", "storagebackends and storagenodes are served");
  return there;
}

// That somebody holds the Lease says little: a holder that was killed leaves its name. A renewal is a sign of
// life, and seen by its change alone, whatever the clocks say.
void Examination::leader() {
  const std::string subject = absl::StrCat("Lease ", options_.name_space, "/collage-operator");
  const std::string look = absl::StrCat("kubectl -n ", options_.name_space,
                                        " get pods -l app.kubernetes.io/part-of=collage,app.kubernetes.io/"
                                        "component=operator");
  const base::Context patience = context_.with_timeout(options_.lease_patience);
  std::string seen, holder;
  do {
    auto lease = client_.get(context_, kube::kLeases, {options_.name_space, "collage-operator"});
    if (absl::IsNotFound(lease.status())) {
      bad(subject, absl::StrCat("no operator has ever led here: ", look));
      return;
    }
    if (!lease.ok()) {
      bad(subject, std::string(lease.status().message()));
      return;
    }
    holder = base::get_string(*lease, "/spec/holderIdentity");
    const std::string renewed = base::get_string(*lease, "/metadata/resourceVersion");
    if (!holder.empty() && !seen.empty() && renewed != seen) {
      good(subject, absl::StrCat(holder, " leads"));
      return;
    }
    seen = renewed;
  } while (patience.sleep_for(std::chrono::milliseconds(200)).ok());
  bad(subject, holder.empty() ? absl::StrCat("no operator leads: ", look)
                              : absl::StrCat(holder, " does not renew it, so no operator leads: ", look));
}

void Examination::agents() {
  auto sets = list(kube::kDaemonSets, {.label_selector = kAgents});
  if (!sets.ok()) {
    bad("agents", std::string(sets.status().message()));
    return;
  }
  if (sets->empty()) bad("agents", "there is no DaemonSet of Collage: is the chart installed?");
  for (const Json& set : *sets) {
    const std::string name_space = base::get_string(set, "/metadata/namespace");
    const std::string subject =
        absl::StrCat("DaemonSet ", name_space, "/", base::get_string(set, "/metadata/name"));
    const int64_t wanted = base::get_int(set, "/status/desiredNumberScheduled");
    const int64_t ready = base::get_int(set, "/status/numberReady");
    if (wanted == 0) {
      bad(subject, "no node is to run an agent: look at the values node.nodeSelector and node.tolerations");
    } else if (ready < wanted) {
      bad(subject, absl::StrCat(ready, " of ", wanted, " agents are ready: kubectl -n ", name_space,
                                " get pods -o wide -l app.kubernetes.io/component=node"));
    } else {
      good(subject, absl::StrCat("all ", wanted, " agents are ready"));
    }
  }
}

void Examination::nodes() {
  std::set<std::string> kinds;
  int64_t count = 0;
  for (const Json& node : nodes_) {
    const std::string subject = absl::StrCat("StorageNode ", base::get_string(node, "/metadata/name"));
    if (base::get_string(node, "/status/agentVersion").empty()) {
      note(subject, "no agent has run there: pods on it cannot mount volumes of Collage");
      continue;
    }
    ++count;
    const Json* states = base::find(node, "/status/kinds");
    if (states == nullptr || !states->is_array()) continue;
    for (const Json& kind : *states) {
      const std::string name = base::get_string(kind, "/name");
      if (base::get_bool(kind, "/registered")) {
        kinds.insert(name);
      } else {
        bad(subject, absl::StrCat("the kubelet has not taken the driver of kind ", name, ": ",
                                  base::get_string(kind, "/message", "it was not asked yet")));
      }
    }
  }
  if (count == 0) {
    bad("StorageNodes", "no agent has written any: look at the logs of the DaemonSet's pods");
  } else if (!kinds.empty()) {
    good("StorageNodes",
         absl::StrCat(count, " with agents; kinds with a kubelet: ", absl::StrJoin(kinds, ", ")));
  }
}

void Examination::backends() {
  if (backends_.empty())
    note("StorageBackends", "there is none yet: see manifests/examples/backend-local.yaml");
  for (const Json& backend : backends_) {
    const std::string subject = absl::StrCat("StorageBackend ", base::get_string(backend, "/metadata/name"));
    const Json* conditions = base::find(backend, "/status/conditions");
    const Json* ready = nullptr;
    if (conditions != nullptr && conditions->is_array()) {
      auto found = std::find_if(conditions->begin(), conditions->end(), [](const Json& condition) {
        return base::get_string(condition, "/type") == "Ready";
      });
      if (found != conditions->end()) ready = &*found;
    }
    const std::string reason = ready == nullptr ? "" : base::get_string(*ready, "/reason");
    if (ready == nullptr || base::get_int(backend, "/status/observedGeneration") !=
                                base::get_int(backend, "/metadata/generation")) {
      bad(subject, "no operator has looked at it as it is now");
    } else if (base::get_string(*ready, "/status") == "True") {
      good(subject, absl::StrCat("Ready; volumes: ", base::get_int(backend, "/status/volumes/count")));
    } else if (base::get_bool(backend, "/spec/paused")) {
      note(subject, "paused: nothing is made on it until spec.paused is false");
    } else {
      bad(subject, absl::StrCat("not Ready, ", reason, ": ", base::get_string(*ready, "/message")));
    }
  }
}

absl::Status write_and_read(const std::string& file) {
  const std::string content = base::random_hex(32 << 10);
  COLLAGE_RETURN_IF_ERROR(base::write_file_atomic(file, content, 0600));
  auto back = base::read_file(file);
  absl::Status removed = base::remove_file(file);
  if (!back.ok()) return back.status();
  if (*back != content)
    return absl::DataLossError(absl::StrCat(file, " does not hold what was written to it"));
  return removed;
}

void Examination::volume() {
  const std::string& directory = options_.volume;
  const std::string subject = absl::StrCat("volume ", directory);
  struct stat here, above;
  if (stat(directory.c_str(), &here) != 0 || stat((directory + "/..").c_str(), &above) != 0) {
    bad(subject, std::string(base::errno_status(errno, "look at it").message()));
    return;
  }
  if (here.st_dev == above.st_dev) {
    bad(subject, "nothing is mounted there");
    return;
  }
  absl::Status tried = write_and_read(absl::StrCat(directory, "/.collage-doctor-", base::random_hex(4)));
  if (!tried.ok()) {
    bad(subject, std::string(tried.message()));
    return;
  }
  good(subject, "mounted; a file was written, flushed, read back and removed");
}

}  // namespace

std::vector<Finding> examine(const base::Context& context, kube::Client& client,
                             const DoctorOptions& options) {
  return Examination(context, client, options).run();
}

bool healthy(const std::vector<Finding>& findings) {
  return std::none_of(findings.begin(), findings.end(),
                      [](const Finding& finding) { return finding.grade == Grade::kBad; });
}

std::string to_text(const std::vector<Finding>& findings) {
  size_t width = 0;
  for (const Finding& finding : findings) width = std::max(width, finding.subject.size());
  std::string text;
  for (const Finding& finding : findings) {
    const char* grade = finding.grade == Grade::kGood   ? "ok    "
                        : finding.grade == Grade::kNote ? "note  "
                                                        : "FAIL  ";
    absl::StrAppend(&text, grade, finding.subject, std::string(width - finding.subject.size() + 2, ' '),
                    finding.message, "\n");
  }
  return text;
}

}  // namespace collage::cli
