#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "operator/kube/objects.h"
#include "operator/kube/objects_detail.h"

// Classes, nodes and our own resources.
namespace collage::kube {
namespace {

std::vector<std::map<std::string, std::vector<std::string>>> parse_topologies(const base::Json& object) {
  std::vector<std::map<std::string, std::vector<std::string>>> result;
  const base::Json* terms = base::find(object, "/allowedTopologies");
  if (terms == nullptr || !terms->is_array()) return result;
  for (const base::Json& term : *terms) {
    std::map<std::string, std::vector<std::string>> keys;
    const base::Json* expressions = base::find(term, "/matchLabelExpressions");
    if (expressions == nullptr || !expressions->is_array()) continue;
    for (const base::Json& expression : *expressions) {
      const std::string key = base::get_string(expression, "/key");
      if (!key.empty()) keys[key] = detail::string_list(expression, "/values");
    }
    if (!keys.empty()) result.push_back(std::move(keys));
  }
  return result;
}

bool is_true(const base::Json& object, std::string_view pointer) {
  return base::get_string(object, pointer) == "true";
}

bool is_topology_label(std::string_view key) {
  const size_t slash = key.find('/');
  if (slash == std::string_view::npos) return false;
  const std::string_view domain = key.substr(0, slash);
  return domain == "topology.kubernetes.io" || domain == "collage.storage" ||
         domain.ends_with(".collage.storage");
}

template <typename T>
absl::StatusOr<T> parse_whole(const base::Json& object) {
  T result;
  COLLAGE_ASSIGN_OR_RETURN(result.meta, parse_meta(object));
  result.json = std::make_shared<const base::Json>(object);
  return result;
}

}  // namespace

template <>
absl::StatusOr<StorageClass> parse<StorageClass>(const base::Json& object) {
  StorageClass result;
  COLLAGE_ASSIGN_OR_RETURN(result.meta, parse_meta(object));
  result.provisioner = detail::interned(object, "/provisioner");
  result.parameters = detail::string_map(object, "/parameters");
  result.reclaim_policy = detail::interned(object, "/reclaimPolicy", "Delete");
  result.binding_mode = detail::interned(object, "/volumeBindingMode", "Immediate");
  result.mount_options = detail::string_list(object, "/mountOptions");
  result.allowed_topologies = parse_topologies(object);
  result.allow_expansion = base::get_bool(object, "/allowVolumeExpansion");
  result.is_default =
      is_true(object, "/metadata/annotations/storageclass.kubernetes.io~1is-default-class") ||
      is_true(object, "/metadata/annotations/storageclass.beta.kubernetes.io~1is-default-class");
  result.managed_by_backend = base::get_string(object, "/metadata/labels/collage.storage~1backend");
  result.spec_hash = base::get_string(object, "/metadata/annotations/collage.storage~1spec-hash");
  return result;
}

const CsiNode::Driver* CsiNode::driver(std::string_view name) const {
  const auto found =
      std::find_if(drivers.begin(), drivers.end(), [&](const Driver& each) { return each.name == name; });
  return found == drivers.end() ? nullptr : &*found;
}

template <>
absl::StatusOr<CsiNode> parse<CsiNode>(const base::Json& object) {
  CsiNode result;
  COLLAGE_ASSIGN_OR_RETURN(result.meta, parse_meta(object));
  const base::Json* drivers = base::find(object, "/spec/drivers");
  if (drivers == nullptr || !drivers->is_array()) return result;
  for (const base::Json& each : *drivers) {
    CsiNode::Driver driver;
    driver.name = detail::interned(each, "/name");
    if (driver.name.empty()) continue;
    driver.node_id = base::get_string(each, "/nodeID");
    driver.topology_keys = detail::interned_list(each, "/topologyKeys");
    driver.allocatable = base::get_int(each, "/allocatable/count", -1);
    result.drivers.push_back(std::move(driver));
  }
  return result;
}

template <>
absl::StatusOr<Node> parse<Node>(const base::Json& object) {
  Node node;
  COLLAGE_ASSIGN_OR_RETURN(node.meta, parse_meta(object));
  node.hostname = node.meta.name;
  for (auto& [key, value] : detail::string_map(object, "/metadata/labels")) {
    if (is_topology_label(key)) node.topology.emplace(key, value);
    if (key == "kubernetes.io/hostname") node.hostname = value;
  }
  if (const base::Json* conditions = base::find(object, "/status/conditions");
      conditions != nullptr && conditions->is_array()) {
    for (const base::Json& condition : *conditions) {
      if (base::get_string(condition, "/type") == "Ready")
        node.ready = base::get_string(condition, "/status") == "True";
    }
  }
  node.machine = base::get_string(object, "/status/nodeInfo/systemUUID");
  if (node.machine.empty()) node.machine = base::get_string(object, "/status/nodeInfo/machineID");
  if (const base::Json* taints = base::find(object, "/spec/taints");
      taints != nullptr && taints->is_array()) {
    for (const base::Json& taint : *taints) {
      const std::string key = base::get_string(taint, "/key");
      if (key == "node.kubernetes.io/out-of-service") node.out_of_service = true;
      if (key.ends_with("/agent-not-ready")) node.agent_taints.emplace_back(key);
    }
  }
  constexpr std::string_view kCsiPrefix = "kubernetes.io/csi/";
  for (const std::string& name : detail::string_list(object, "/status/volumesInUse")) {
    if (!name.starts_with(kCsiPrefix) || name.find(".collage.storage^") == std::string::npos) continue;
    node.volumes_in_use.push_back(name.substr(kCsiPrefix.size()));
  }
  return node;
}

template <>
absl::StatusOr<Namespace> parse<Namespace>(const base::Json& object) {
  Namespace result;
  COLLAGE_ASSIGN_OR_RETURN(result.meta, parse_meta(object));
  result.labels = detail::string_map(object, "/metadata/labels");
  return result;
}

template <>
absl::StatusOr<CsiDriver> parse<CsiDriver>(const base::Json& object) {
  CsiDriver result;
  COLLAGE_ASSIGN_OR_RETURN(result.meta, parse_meta(object));
  const base::Json* spec = base::find(object, "/spec");
  if (spec != nullptr && result.meta.name.ends_with(".collage.storage"))
    result.spec = std::make_shared<const base::Json>(*spec);
  return result;
}

template <>
absl::StatusOr<CsiStorageCapacity> parse<CsiStorageCapacity>(const base::Json& object) {
  CsiStorageCapacity result;
  COLLAGE_ASSIGN_OR_RETURN(result.meta, parse_meta(object));
  result.backend = base::get_string(object, "/metadata/labels/collage.storage~1backend");
  result.storage_class = detail::interned(object, "/storageClassName");
  if (const base::Json* topology = base::find(object, "/nodeTopology"))
    result.node_topology = base::dump_json(*topology);
  result.available_bytes = detail::quantity(object, "/capacity", 0);
  result.maximum_volume_bytes = detail::quantity(object, "/maximumVolumeSize", 0);
  return result;
}

template <>
absl::StatusOr<BackendObject> parse<BackendObject>(const base::Json& object) {
  return parse_whole<BackendObject>(object);
}

template <>
absl::StatusOr<StorageNodeObject> parse<StorageNodeObject>(const base::Json& object) {
  return parse_whole<StorageNodeObject>(object);
}

}  // namespace collage::kube
