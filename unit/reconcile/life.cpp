#include "unit/reconcile/life.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "drivers/image/image_driver.h"
#include "drivers/local/local_driver.h"
#include "operator/reconcile/node_agent.h"
#include "unit/reconcile/stand_in_agent.h"
#include "unit/testing/fake_nodes.h"
#include "unit/testing/temp_dir.h"

namespace collage::testing {

using base::Json;
using drivers::Volume;

namespace {

constexpr const char* kNodes[] = {"node-a", "node-b"};
constexpr char kUser[] = "node-a";  // where the pod runs

drivers::Kind kind_of(Store store) {
  if (store == Store::kImage) return drivers::image_kind();
  if (store == Store::kLocal) return drivers::local_kind();
  FakeDriverOptions options;
  if (store == Store::kNodes) options.info.control = drivers::ControlPlace::kAnyNode;
  if (store == Store::kOwned) options.info.control = drivers::ControlPlace::kOwnerNode;
  return fake_kind(options);
}

Cluster::Options options_of(Store store) {
  Cluster::Options options{.protects = true, .through_nodes = store == Store::kNodes};
  options.driver.info = kind_of(store).info.kind == "fake" ? kind_of(store).info : fake_info();
  if (store == Store::kOwned) options.driver.node = kUser;
  return options;
}

class FakeView final : public StorageView {
 public:
  explicit FakeView(FakeDriver& driver) : driver_(driver) {}
  std::vector<Volume> volumes() override {
    std::vector<Volume> list;
    for (const auto& [id, volume] : driver_.volumes()) list.push_back(volume);
    return list;
  }
  void write(const Volume& volume, const std::string& content) override { driver_.write(volume.id, content); }
  std::string read(const Volume& volume) override { return driver_.read(volume.id); }

 private:
  FakeDriver& driver_;
};

// The image files of real drivers, one driver a directory.
class FileView final : public StorageView {
 public:
  void add(const std::string& directory, std::shared_ptr<drivers::Driver> driver) {
    stores_.emplace_back(directory, std::move(driver));
  }
  std::vector<Volume> volumes() override {
    std::vector<Volume> all;
    for (const auto& [directory, driver] : stores_) {
      const auto page = driver->list({}, "", 0);
      EXPECT_TRUE(page.ok()) << page.status();
      if (page.ok()) all.insert(all.end(), page->volumes.begin(), page->volumes.end());
    }
    return all;
  }
  void write(const Volume& volume, const std::string& content) override {
    std::fstream(image_of(volume), std::ios::in | std::ios::out | std::ios::binary) << content;
  }
  std::string read(const Volume& volume) override {
    std::ifstream file(image_of(volume), std::ios::binary);
    std::string content(std::istreambuf_iterator<char>(file), {});
    return content.substr(0, content.find('\0'));
  }

 private:
  std::string image_of(const Volume& volume) const {
    for (const auto& [directory, driver] : stores_) {
      for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
        const bool of_volume = entry.path().parent_path().filename() == volume.name;
        if (of_volume && entry.path().filename().string().starts_with("image.")) return entry.path();
      }
    }
    return "";
  }
  std::vector<std::pair<std::string, std::shared_ptr<drivers::Driver>>> stores_;
};

}  // namespace

std::string to_string(Store store) {
  switch (store) {
    case Store::kFake:
      return "Fake";
    case Store::kImage:
      return "Image";
    case Store::kLocal:
      return "Local";
    case Store::kNodes:
      return "Nodes";
    case Store::kOwned:
      return "Owned";
  }
  return "";
}

struct Life::Backing {
  struct Node {
    Node(Cluster& cluster, const std::string& name)
        : client(cluster.api.client()),
          agent(*cluster.driver),
          link(*client, agent, cluster.kinds, name, "0.1.0") {}
    ~Node() {
      stop.request_stop();
      link.stop();
    }
    std::stop_source stop;
    std::unique_ptr<kube::Client> client;
    StandInAgent agent;
    reconcile::NodeAgent link;
  };
  TempDir directories[2];
  FakeNodes nodes;
  std::vector<std::unique_ptr<Node>> agents;
  std::unique_ptr<StorageView> view;
};

std::vector<Life::Phase> Life::phases_of(Store store) {
  if (!kind_of(store).attaches) return {Phase::kProvision, Phase::kDelete};
  return {Phase::kProvision, Phase::kAttach, Phase::kDetach, Phase::kDelete};
}

std::string Life::to_string(Phase phase) {
  switch (phase) {
    case Phase::kProvision:
      return "Provision";
    case Phase::kAttach:
      return "Attach";
    case Phase::kDetach:
      return "Detach";
    case Phase::kDelete:
      return "Delete";
  }
  return "";
}

Life::Life(Store store)
    : cluster(options_of(store)), cutter(cluster), store_(store), backing_(std::make_unique<Backing>()) {
  cluster.kinds = {kind_of(store)};
  const drivers::DriverInfo& info = cluster.kinds.front().info;
  cluster.api.put(a_class("fast").of_driver(csi_driver()).of_backend("fast"));
  const std::string key = drivers::node_topology_key(info.kind);
  std::vector<std::string> keys;
  if (info.control == drivers::ControlPlace::kOwnerNode) keys.push_back(key);
  for (const std::string node : kNodes) {
    cluster.api.put(a_node(node).label(key, node));
    cluster.api.put(a_csi_node(node).driver(csi_driver(), node, keys));
  }
  if (store == Store::kImage || store == Store::kLocal) {
    make_file_stores();
  } else {
    backing_->view = std::make_unique<FakeView>(*cluster.driver);
  }
  if (store == Store::kNodes) start_agents();
  oracle_ = std::make_unique<Oracle>(cluster.api, *backing_->view);
}

// A directory that both nodes share, or one each.
void Life::make_file_stores() {
  const drivers::Kind& kind = cluster.kinds.front();
  const bool owned = kind.info.control == drivers::ControlPlace::kOwnerNode;
  auto view = std::make_unique<FileView>();
  for (int i = 0; i < 2; ++i) {
    const std::string& directory = backing_->directories[owned ? i : 0].path();
    const Json block = {{"directory", directory}};
    std::shared_ptr<drivers::Driver> driver =
        *kind.make({.backend = "fast", .block = &block, .node = kNodes[i]});
    const auto probed = driver->probe({}, {.initialize = true});
    EXPECT_TRUE(probed.ok()) << probed.status();
    cluster.system_id = owned ? "" : probed->system_id;
    if (owned || i == 0) view->add(directory, driver);
    backing_->nodes.add(kNodes[i], driver);
  }
  backing_->view = std::move(view);
  cutter.watch(backing_->nodes);
  cluster.driver_used = engine::make_node_proxy(kind, "fast", backing_->nodes);
}

void Life::start_agents() {
  cutter.nodes_go_on();
  cluster.api.put(a_backend("fast").kind("fake", Json::object()));
  for (const std::string node : kNodes) {
    cluster.api.put(a_storage_node(node).set("/spec", Json::object()));
    auto agent = std::make_unique<Backing::Node>(cluster, node);
    agent->link.start(base::Context(agent->stop.get_token()));
    backing_->agents.push_back(std::move(agent));
  }
  EXPECT_TRUE(cluster.wait([&] {
    return std::all_of(std::begin(kNodes), std::end(kNodes), [&](const char* node) {
      return base::get_bool(*cluster.api.get(kube::kStorageNodes, node), "/status/backends/0/ready");
    });
  }));
}

Life::~Life() {
  backing_->agents.clear();  // they use the cluster, whose operator uses the nodes
  cluster.kill();
  cluster.driver_used.reset();
}

bool Life::nodes_are_idle() const {
  for (const Json& node : cluster.api.list(kube::kStorageNodes)) {
    for (const char* list : {"/spec/operations", "/status/operations"}) {
      const Json* operations = base::find(node, list);
      if (operations != nullptr && !operations->empty()) return false;
    }
  }
  return true;
}

std::string Life::csi_driver() const {
  return drivers::csi_driver_name(cluster.kinds.front().info.kind);
}

std::string Life::volume() const {
  return absl::StrCat("pvc-", uid_);
}

void Life::put_claim() {
  cluster.api.put(a_claim("data").uid(uid_).of_driver(csi_driver()).size("1Mi"));
}

void Life::remove_attachment() {
  cluster.api.remove(kube::kVolumeAttachments, absl::StrCat("csi-", volume(), "-", kUser));
}

void Life::begin(Phase phase) {
  switch (phase) {
    case Phase::kProvision:
      return put_claim();
    case Phase::kAttach:
      cluster.api.put(an_attachment(volume(), kUser).of_driver(csi_driver()));
      return;
    case Phase::kDetach:
      return remove_attachment();
    case Phase::kDelete:
      return cluster.delete_claim("data");
  }
}

bool Life::attached() const {
  const auto object = cluster.attachment(volume(), kUser);
  return object.has_value() && base::get_bool(*object, "/status/attached");
}

bool Life::is_gone() const {
  return !cluster.pv(volume()).has_value() && cluster.no_intents();
}

bool Life::done(Phase phase) {
  switch (phase) {
    case Phase::kProvision:
      return cluster.bound("data") && cluster.no_intents();
    case Phase::kAttach:
      return attached();
    case Phase::kDetach:
      return !cluster.attachment(volume(), kUser).has_value();
    case Phase::kDelete:
      return is_gone();
  }
  return false;
}

bool Life::live(Phase phase) {
  begin(phase);
  return settled(Meanwhile::kNothing, phase);
}

bool Life::live_until(Phase phase) {
  for (const Phase before : phases_of(store_)) {
    if (before == phase) return true;
    if (!live(before)) return false;
  }
  return true;
}

void Life::happens(Meanwhile what) {
  if (what == Meanwhile::kNothing) return;
  remove_attachment();
  cluster.delete_claim("data");
  if (what == Meanwhile::kDeleted) return;
  uid_ += "-2";
  put_claim();
}

bool Life::settled_already(Meanwhile what, Phase phase) {
  // What a node was asked for by a dead operator may come to its end late.
  if (!nodes_are_idle()) return false;
  if (what == Meanwhile::kNothing) return done(phase);
  const std::string old = what == Meanwhile::kRenewed ? "pvc-uid-data" : volume();
  const bool gone = !cluster.pv(old).has_value() && !cluster.attachment(old, kUser).has_value();
  return gone && cluster.no_intents() && (what == Meanwhile::kDeleted || cluster.bound("data"));
}

bool Life::settled(Meanwhile what, Phase phase) {
  const bool came = cluster.wait([&] { return settled_already(what, phase); });
  EXPECT_TRUE(came) << to_string(phase) << " did not come to its end";
  oracle_->applications_write();
  return nothing_is_wrong_at_rest() && came;
}

bool Life::nothing_is_wrong() {
  return report(oracle_->wrongs());
}

bool Life::nothing_is_wrong_at_rest() {
  return report(oracle_->wrongs_at_rest());
}

bool Life::report(const std::vector<std::string>& wrongs) {
  for (const std::string& wrong : wrongs) ADD_FAILURE() << wrong;
  return wrongs.empty();
}

}  // namespace collage::testing
