#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/status.h"
#include "drivers/registry.h"
#include "operator/csi/node_server.h"
#include "operator/node/agent.h"
#include "operator/reconcile/node_agent.h"
#include "operator/roles/common.h"
#include "operator/roles/roles.h"

namespace collage::roles {
namespace {

namespace log = base::log;

struct Options : CommonOptions {
  std::string node_name;
  std::string kubelet_directory = "/var/lib/kubelet";
  std::string state_directory = "/var/lib/collage/node";
  std::string mount_helper = "/usr/bin/collage-mount";
};

int run(const Options& options) {
  base::Process process;
  const base::Context context(process.stop());
  auto config = kube::find_config(options.kubeconfig, options.kube_context);
  if (!config.ok()) return fail(context, "no API server to speak to", config.status());
  auto client = kube::make_client(*config, nullptr, absl::StrCat("collage-node/", kVersion));
  if (!client.ok())
    return fail(context, "the API server's address or credentials cannot be used", client.status());

  auto agent = node::make_agent({.node_name = options.node_name,
                                 .state_directory = options.state_directory,
                                 .mount_helper = options.mount_helper,
                                 .kinds = &drivers::kinds()});
  if (!agent.ok()) return fail(context, "the node's state cannot be used", agent.status());
  absl::Status recovered = (*agent)->recover(context);
  if (!recovered.ok())
    return fail(context, "the mounts of an earlier process could not be looked through", recovered);

  csi::NodeServer sockets(**agent, {.kubelet_directory = options.kubelet_directory,
                                    .state_directory = options.state_directory,
                                    .node_name = options.node_name,
                                    .version = kVersion});
  reconcile::NodeAgent link(**client, **agent, drivers::kinds(), options.node_name, kVersion);

  base::HttpServer server;
  server.add_readiness_check("sockets", [&] { return sockets.ready(); });
  server.add_readiness_check(
      "cluster", [&] { return context.stopped() ? absl::UnavailableError("stopping") : link.ready(); });
  auto port = server.listen(options.listen);
  if (!port.ok()) return fail(context, "--listen cannot be used", port.status());
  const base::MemoryTrimmer trimmer;
  log::info(context, "collage node", {{"version", kVersion}, {"node", options.node_name}, {"port", *port}});

  // Volumes that the journal holds are served before the API server answers: a kubelet can unmount them
  // meanwhile.
  absl::Status started = sockets.start(context);
  if (!started.ok()) return fail(context, "the CSI sockets cannot be served", started);
  if (wait_for_api_server(context, **client, config->server).ok()) {
    link.start(context);
    process.wait();
  }
  log::info(context, "stopping; mounts stay as they are");
  sockets.stop();
  link.stop();
  server.stop();
  return 0;
}

}  // namespace

int run_node(int argc, char** argv) {
  Options options;
  options.listen = ":8081";
  CLI::App app("Mounts volumes on one node for its kubelet.", "collage node");
  add_common_options(app, options);
  app.add_option("--node-name", options.node_name, "name of this node in the cluster")->required();
  app.add_option("--kubelet-directory", options.kubelet_directory,
                 "the kubelet's --root-dir, at the same path here")
      ->capture_default_str();
  app.add_option("--state-directory", options.state_directory, "journal of mounts; must survive restarts")
      ->capture_default_str();
  app.add_option("--mount-helper", options.mount_helper, "the program collage-mount")->capture_default_str();
  if (int code = parse_options(app, argc, argv); code >= 0) return code;
  base::share_arenas();
  if (absl::Status begun = begin(options); !begun.ok()) return fail({}, "bad options", begun);
  return run(options);
}

}  // namespace collage::roles
