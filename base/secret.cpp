#include "base/secret.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_replace.h"

namespace collage::base {

absl::Status without_secrets(const absl::Status& status, const Secrets& secrets) {
  if (status.ok()) return status;
  std::string message(status.message());
  // Shorter ones would tear ordinary words apart, and are guessed anyway.
  constexpr size_t kShortest = 4;
  for (const auto& [key, secret] : secrets) {
    if (secret.reveal().size() < kShortest) continue;
    message = absl::StrReplaceAll(message, {{secret.reveal(), "***"}});
    message = absl::StrReplaceAll(message, {{absl::Base64Escape(secret.reveal()), "***"}});
  }
  return absl::Status(status.code(), message);
}

}  // namespace collage::base
