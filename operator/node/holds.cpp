#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/random.h"
#include "base/status.h"
#include "operator/node/agent_impl.h"

// "Have you got this volume?", asked before it is given to another node. A no is proof, so it is said only
// when the journal, the mounts and the loop devices agree on it. Looking touches no mount and no share: it
// never hangs.
namespace collage::node {
std::string AgentImpl::where_held(const std::string& handle, const mount::MountTable& table) const {
  // Of an earlier boot too: what recovery could not explain away is still there.
  if (const std::optional<VolumeRecord> record = find_record(handle)) return record->staging_path;
  // The journal may have been lost. Kubelet stages at .../<sha256 of the volume's handle>/globalmount.
  const std::string kubelets = absl::StrCat("/", base::sha256_hex(handle), "/globalmount");
  for (const mount::MountEntry& entry : table.entries()) {
    if (entry.mount_point.ends_with(kubelets)) return entry.mount_point;
  }
  const std::vector<std::string> loops = table.loops_in(handle.substr(handle.find_last_of('/') + 1));
  return loops.empty() ? "" : loops.front();
}

absl::StatusOr<base::Json> AgentImpl::holds(const base::Context& context, const std::string& backend,
                                            const base::Json& arguments) {
  const std::string id = base::get_string(arguments, "/id");
  if (id.empty()) return absl::InvalidArgumentError("arguments.id: is missing");
  const std::string handle = absl::StrCat(backend, "/", id);
  // Behind the step that is under way, if any: what it does to the volume is done then.
  COLLAGE_ASSIGN_OR_RETURN(const VolumeLocks::Hold hold, begin(context, handle));
  COLLAGE_ASSIGN_OR_RETURN(const mount::MountTable table, mounter_->table());
  const std::string where = where_held(handle, table);
  return base::Json{{"held", !where.empty()}, {"where", where}, {"bootID", boot_id_}};
}

}  // namespace collage::node
