#include "operator/mount/helper_client.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "base/status.h"
#include "base/subprocess.h"

namespace collage::mount {

absl::StatusOr<base::Json> HelperClient::call(const base::Context& context, const std::string& verb,
                                              const std::string& volume, std::chrono::seconds timeout,
                                              base::Json request) const {
  request["verb"] = verb;
  request["volume"] = volume;
  request["lock"] = absl::StrCat(lock_directory_, "/", base::sha256_hex(volume).substr(0, 32), ".lock");
  base::Command command;
  command.program = program_;
  command.input = base::dump_json(request);
  absl::StatusOr<base::CommandResult> ended = base::run_command(context.with_timeout(timeout), command);
  if (!ended.ok()) return base::annotate(ended.status(), absl::StrCat(verb, " for volume ", volume));
  absl::StatusOr<base::Json> answer = base::parse_json(ended->output);
  if (!answer.ok() || !answer->is_object() || base::find(*answer, "/code") == nullptr) {
    return absl::InternalError(absl::StrCat(verb, " for volume ", volume, ": ", program_, " ended with ",
                                            ended->exit_code,
                                            " and no answer: ", ended->error_output.substr(0, 500)));
  }
  const auto code = static_cast<absl::StatusCode>(base::get_int(*answer, "/code"));
  if (code != absl::StatusCode::kOk) return absl::Status(code, base::get_string(*answer, "/message"));
  const base::Json* result = base::find(*answer, "/result");
  return result != nullptr ? *result : base::Json::object();
}

}  // namespace collage::mount
