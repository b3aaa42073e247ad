#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "base/process.h"
#include "operator/cli/doctor.h"
#include "operator/roles/common.h"
#include "operator/roles/roles.h"

namespace collage::roles {
namespace {

struct Options : CommonOptions {
  cli::DoctorOptions doctor;
  int wait_seconds = 0;
};

int run(const Options& options) {
  base::Process process;
  const base::Context context(process.stop());
  auto config = kube::find_config(options.kubeconfig, options.kube_context);
  if (!config.ok()) return fail(context, "no API server to speak to", config.status());
  auto client = kube::make_client(*config, nullptr, absl::StrCat("collage-doctor/", kVersion));
  if (!client.ok())
    return fail(context, "the API server's address or credentials cannot be used", client.status());

  const base::Context patience = context.with_timeout(std::chrono::seconds(options.wait_seconds));
  std::vector<cli::Finding> findings;
  do {
    findings = cli::examine(context, **client, options.doctor);
  } while (!cli::healthy(findings) && patience.sleep_for(std::chrono::seconds(1)).ok());
  std::fputs(cli::to_text(findings).c_str(), stdout);
  return cli::healthy(findings) ? 0 : 1;
}

}  // namespace

int run_doctor(int argc, char** argv) {
  Options options;
  options.log_level = "error";
  CLI::App app("Looks at an installation and says what is wrong with it; 0 if nothing is.", "collage doctor");
  add_common_options(app, options);
  app.remove_option(app.get_option("--listen"));
  app.add_option("--namespace", options.doctor.name_space, "the operator's namespace")->capture_default_str();
  app.add_option("--volume", options.doctor.volume, "a mounted volume to write to and read from");
  app.add_option("--wait", options.wait_seconds,
                 "look again for so long while something is wrong, such as 60s")
      ->transform(CLI::AsNumberWithUnit(std::map<std::string, int>{{"s", 1}, {"m", 60}},
                                        CLI::AsNumberWithUnit::DEFAULT, "TIME"));
  if (int code = parse_options(app, argc, argv); code >= 0) return code;
  if (absl::Status begun = begin(options); !begun.ok()) return fail({}, "bad options", begun);
  return run(options);
}

}  // namespace collage::roles
