#include "operator/csi/node_server.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/retry.h"
#include "base/status.h"
#include "operator/csi/services.h"
#include "operator/csi/unix_server.h"

namespace collage::csi {

using base::Context;
using Time = std::chrono::steady_clock::time_point;

namespace {

constexpr auto kLookAgain = std::chrono::seconds(15);  // whether the sockets are still in place
constexpr auto kDrain = std::chrono::seconds(10);
constexpr auto kFirstRetry = std::chrono::seconds(1);
constexpr auto kLastRetry = std::chrono::seconds(60);

// One kind: two servers, and what kubelet made of the second. The state machine:
//
//    down --serve--> served --announce--> announced --kubelet--> registered
//      ^               ^                      |
//      |               +------- refused ------+   with back-off: a new socket makes kubelet try again
//      +--- a socket that cannot be served, or that somebody removed; with back-off
struct KindServer {
  explicit KindServer(Plugin plugin) : plugin(std::move(plugin)) {}
  Plugin plugin;
  std::unique_ptr<IdentityService> identity;
  std::unique_ptr<NodeService> node;
  std::unique_ptr<RegistrationService> registration;
  std::unique_ptr<UnixServer> csi_socket, registration_socket;
  base::Backoff backoff{kFirstRetry, kLastRetry};
  Time next_try;        // while something is to be tried again
  std::string problem;  // why csi_socket is not served; "" when it is
};

struct News {  // of kubelet
  bool registered = false;
  std::string error;
};

}  // namespace

struct NodeServer::Impl {
  Impl(node::Agent& agent, NodeServerOptions options) : agent(agent), options(std::move(options)) {}

  node::Agent& agent;
  const NodeServerOptions options;
  Lanes lanes;
  std::map<std::string, KindServer> kinds;  // the loop's alone

  mutable std::mutex mutex;
  std::condition_variable_any wake;
  bool changed = true;
  std::map<std::string, News> news;             // by kind, not yet looked at
  std::map<std::string, std::string> problems;  // by kind: why it is not served
  bool looked = false;
  std::jthread loop;

  std::string csi_path(const std::string& name) const {
    return absl::StrCat(options.kubelet_directory, "/plugins/", name, "/csi.sock");
  }
  std::string registration_path(const std::string& name) const {
    return absl::StrCat(options.kubelet_directory, "/plugins_registry/", name, "-reg.sock");
  }
  std::string lock_path(const std::string& name, const char* what) const {
    return absl::StrCat(options.state_directory, "/sockets/", name, "-", what, ".lock");
  }

  void poke() {
    {
      std::lock_guard lock(mutex);
      changed = true;
    }
    wake.notify_all();
  }
  void told(const std::string& kind, bool registered, const std::string& error) {
    {
      std::lock_guard lock(mutex);
      news[kind] = {registered, error};
      changed = true;
    }
    wake.notify_all();
  }

  absl::Status serve(const std::string& kind, KindServer& server);
  absl::Status announce(const std::string& kind, KindServer& server);
  void look_at(const Context& context, const std::string& kind, KindServer& server);
  void hear(const Context& context, const std::string& kind, KindServer& server, const News& news);
  void retire(const Context& context, std::map<std::string, KindServer>::iterator kind);
  void reconcile(const Context& context);
  void run(const Context& context, std::stop_token stop);
};

absl::Status NodeServer::Impl::serve(const std::string& kind, KindServer& server) {
  if (server.csi_socket != nullptr && server.csi_socket->in_place()) return absl::OkStatus();
  server.csi_socket.reset();
  server.identity = std::make_unique<IdentityService>(server.plugin);
  server.node = std::make_unique<NodeService>(server.plugin, agent, lanes);
  absl::StatusOr<std::unique_ptr<UnixServer>> socket = UnixServer::start(
      csi_path(server.plugin.name), 0700, lock_path(kind, "csi"), {server.identity.get(), server.node.get()});
  COLLAGE_RETURN_IF_ERROR(socket.status());
  server.csi_socket = *std::move(socket);
  return absl::OkStatus();
}

absl::Status NodeServer::Impl::announce(const std::string& kind, KindServer& server) {
  if (server.registration_socket != nullptr && server.registration_socket->in_place())
    return absl::OkStatus();
  server.registration_socket.reset();
  const std::string& name = server.plugin.name;
  server.registration = std::make_unique<RegistrationService>(
      name, csi_path(name),
      [this, kind](bool registered, const std::string& error) { told(kind, registered, error); });
  absl::StatusOr<std::unique_ptr<UnixServer>> socket = UnixServer::start(
      registration_path(name), 0750, lock_path(kind, "registration"), {server.registration.get()});
  COLLAGE_RETURN_IF_ERROR(socket.status());
  server.registration_socket = *std::move(socket);
  agent.set_kind_state({kind, false, "kubelet has not answered yet"});
  return absl::OkStatus();
}

void NodeServer::Impl::look_at(const Context& context, const std::string& kind, KindServer& server) {
  if (std::chrono::steady_clock::now() < server.next_try) return;
  absl::Status status = serve(kind, server);
  server.problem = status.ok() ? "" : std::string(status.message());
  if (status.ok()) status = announce(kind, server);
  if (status.ok()) {
    server.next_try = {};
    return;
  }
  server.next_try = std::chrono::steady_clock::now() + server.backoff.next();
  base::log::warning(context, "a kind cannot be served yet", {{"kind", kind}, {"error", status}});
  agent.set_kind_state({kind, false, std::string(status.message())});
}

void NodeServer::Impl::hear(const Context& context, const std::string& kind, KindServer& server,
                            const News& heard) {
  if (heard.registered) {
    server.backoff.reset();
    base::log::info(context, "kubelet registered a kind", {{"kind", kind}});
    agent.set_kind_state({kind, true, ""});
    return;
  }
  base::log::warning(context, "kubelet refused a kind", {{"kind", kind}, {"error", heard.error}});
  agent.set_kind_state({kind, false, absl::StrCat("kubelet refused it: ", heard.error)});
  server.registration_socket.reset();
  server.next_try = std::chrono::steady_clock::now() + server.backoff.next();
}

void NodeServer::Impl::retire(const Context& context, std::map<std::string, KindServer>::iterator kind) {
  kind->second.registration_socket.reset();
  if (kind->second.csi_socket != nullptr) kind->second.csi_socket->stop(kDrain);
  base::log::info(context, "a kind is no longer served", {{"kind", kind->first}});
  kinds.erase(kind);
}

void NodeServer::Impl::reconcile(const Context& context) {
  const std::vector<std::string> wanted = agent.kinds_wanted();
  std::map<std::string, News> heard;
  {
    std::lock_guard lock(mutex);
    heard.swap(news);
  }
  for (auto kind = kinds.begin(); kind != kinds.end();) {
    const auto next = std::next(kind);
    if (std::find(wanted.begin(), wanted.end(), kind->first) == wanted.end()) retire(context, kind);
    kind = next;
  }
  std::map<std::string, std::string> unserved;
  for (const std::string& kind : wanted) {
    auto server = kinds.find(kind);
    if (server == kinds.end()) {
      Plugin plugin{drivers::csi_driver_name(kind), options.version, options.node_name, ""};
      const drivers::Kind* known = agent.find_kind(kind);
      const bool owned = known != nullptr && known->info.control == drivers::ControlPlace::kOwnerNode;
      if (owned) plugin.topology_key = drivers::node_topology_key(kind);
      server = kinds.try_emplace(kind, std::move(plugin)).first;
    }
    if (const auto told = heard.find(kind); told != heard.end())
      hear(context, kind, server->second, told->second);
    look_at(context, kind, server->second);
    if (!server->second.problem.empty()) unserved[kind] = server->second.problem;
  }
  std::lock_guard lock(mutex);
  problems = std::move(unserved);
  looked = true;
}

void NodeServer::Impl::run(const Context& context, std::stop_token stop) {
  std::unique_lock lock(mutex);
  while (!stop.stop_requested()) {
    changed = false;
    lock.unlock();
    reconcile(context);
    Time next = std::chrono::steady_clock::now() + kLookAgain;
    for (const auto& [kind, server] : kinds) {
      if (server.next_try != Time{}) next = std::min(next, server.next_try);
    }
    lock.lock();
    wake.wait_until(lock, stop, next, [this] { return changed; });
  }
}

NodeServer::NodeServer(node::Agent& agent, NodeServerOptions options)
    : impl_(std::make_unique<Impl>(agent, std::move(options))) {}

NodeServer::~NodeServer() {
  stop();
}

absl::Status NodeServer::start(const Context& context) {
  if (!impl_->options.kubelet_directory.starts_with('/')) {
    return absl::InvalidArgumentError(
        "kubelet directory: must be an absolute path, such as /var/lib/kubelet");
  }
  if (impl_->options.node_name.empty()) return absl::InvalidArgumentError("node name: must be set");
  impl_->agent.on_kinds_change([impl = impl_.get()] { impl->poke(); });
  impl_->loop =
      std::jthread([impl = impl_.get(), context](std::stop_token stop) { impl->run(context, stop); });
  return absl::OkStatus();
}

void NodeServer::stop() {
  if (!impl_->loop.joinable()) return;
  impl_->agent.on_kinds_change(nullptr);
  impl_->loop.request_stop();
  impl_->loop.join();
  for (auto& [kind, server] : impl_->kinds) server.registration_socket.reset();
  for (auto& [kind, server] : impl_->kinds) {
    if (server.csi_socket != nullptr) server.csi_socket->stop(kDrain);
  }
  impl_->kinds.clear();
  impl_->lanes.stop();
}

absl::Status NodeServer::ready() const {
  std::lock_guard lock(impl_->mutex);
  if (!impl_->looked) return absl::UnavailableError("the CSI sockets are not served yet");
  for (const auto& [kind, problem] : impl_->problems)
    return absl::UnavailableError(absl::StrCat(kind, ": ", problem));
  return absl::OkStatus();
}

}  // namespace collage::csi
