#include "operator/roles/common.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/http_client.h"
#include "base/json.h"
#include "base/log.h"
#include "base/retry.h"
#include "base/status.h"

namespace collage::roles {

namespace log = base::log;

void add_common_options(CLI::App& app, CommonOptions& options) {
  app.add_option("--log-format", options.log_format, "text (for a person) or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.add_option("--log-level", options.log_level, "debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
  app.add_option("--listen", options.listen, "address of /metrics, /healthz and /readyz")
      ->capture_default_str();
  app.add_option("--kubeconfig", options.kubeconfig, "kubeconfig file; without it the pod's service account");
  app.add_option("--context", options.kube_context, "context of the kubeconfig; without it the current one");
}

int parse_options(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return -1;
}

absl::Status begin(const CommonOptions& options) {
  const auto level = options.log_level == "debug"     ? log::Level::kDebug
                     : options.log_level == "warning" ? log::Level::kWarning
                     : options.log_level == "error"   ? log::Level::kError
                                                      : log::Level::kInfo;
  log::configure(options.log_format == "json" ? log::Format::kJson : log::Format::kText, level);
  base::init_http_client(1);
  return absl::OkStatus();
}

absl::Status wait_for_api_server(const base::Context& context, kube::Client& client,
                                 const std::string& server) {
  base::Backoff backoff(std::chrono::milliseconds(200), std::chrono::seconds(5));
  log::Seldom seldom;
  while (context.status().ok()) {
    auto version = client.version(context.with_timeout(std::chrono::seconds(10)));
    if (version.ok()) {
      log::info(context, "connected to the API server",
                {{"server", server}, {"version", base::get_string(*version, "/gitVersion")}});
      return absl::OkStatus();
    }
    if (seldom.tell(context, base::to_string(version.status()))) {
      log::warning(context, "the API server cannot be reached yet, trying again",
                   {{"server", server}, {"error", version.status()}});
    }
    (void)context.sleep_for(backoff.next());
  }
  return context.status();
}

int fail(const base::Context& context, const char* what, const absl::Status& status) {
  log::error(context, what, {{"error", status}});
  return 1;
}

}  // namespace collage::roles
