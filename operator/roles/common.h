#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "base/context.h"
#include "base/http_server.h"
#include "base/process.h"
#include "operator/kube/client.h"
#include "operator/kube/config.h"

namespace CLI {
class App;
}

// What every role begins with.
namespace collage::roles {

inline constexpr char kVersion[] = COLLAGE_VERSION;

struct CommonOptions {
  std::string log_format = "text";
  std::string log_level = "info";
  std::string listen = ":8080";
  std::string kubeconfig;
  std::string kube_context;
};

void add_common_options(CLI::App& app, CommonOptions& options);
// Parses; a code >= 0 means: stop with it (help, or bad options, which have been told).
int parse_options(CLI::App& app, int argc, char** argv);
// Logs and the HTTP client's threads. INVALID_ARGUMENT names the option.
absl::Status begin(const CommonOptions& options);

// Waits until the API server answers; says why it does not, once a reason and every half minute. Only the
// context ends it early.
absl::Status wait_for_api_server(const base::Context& context, kube::Client& client,
                                 const std::string& server);

// Logs the error, and answers 1.
int fail(const base::Context& context, const char* what, const absl::Status& status);

}  // namespace collage::roles
