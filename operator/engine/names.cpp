#include "operator/engine/names.h"

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace collage::engine {
namespace {

const std::string kVolumePrefix = "pvc-";
constexpr std::string_view kCsiSuffix = ".collage.storage";

bool is_lower_alphanumeric(char c) {
  return absl::ascii_isdigit(c) || absl::ascii_islower(c);
}

}  // namespace

std::string volume_name(std::string_view claim_uid) {
  return kVolumePrefix + std::string(claim_uid);
}

std::string claim_uid_of(std::string_view volume_name) {
  if (!volume_name.starts_with(kVolumePrefix)) return "";
  return std::string(volume_name.substr(kVolumePrefix.size()));
}

std::string attacher_finalizer(std::string_view csi_driver) {
  std::string name;
  name.reserve(csi_driver.size() + 1);
  for (char c : csi_driver) name += absl::ascii_isalnum(c) ? c : '-';
  if (name.ends_with('-')) name += 'X';
  return absl::StrCat("external-attacher/", name);
}

std::string kind_of_csi_driver(std::string_view csi_driver) {
  if (!csi_driver.ends_with(kCsiSuffix)) return "";
  const std::string_view kind = csi_driver.substr(0, csi_driver.size() - kCsiSuffix.size());
  return is_dns_label(kind) ? std::string(kind) : "";
}

bool is_dns_label(std::string_view text) {
  if (text.empty() || text.size() > 63) return false;
  for (char c : text) {
    if (!is_lower_alphanumeric(c) && c != '-') return false;
  }
  return text.front() != '-' && text.back() != '-';
}

bool is_dns_subdomain(std::string_view text) {
  if (text.empty() || text.size() > 253) return false;
  while (true) {
    const size_t dot = text.find('.');
    const std::string_view part = text.substr(0, dot);
    // Only the whole name is limited in length, not its parts.
    if (part.empty() || part.front() == '-' || part.back() == '-') return false;
    for (char c : part) {
      if (!is_lower_alphanumeric(c) && c != '-') return false;
    }
    if (dot == std::string_view::npos) return true;
    text.remove_prefix(dot + 1);
  }
}

namespace {

// Letters, digits, '-', '_' and '.', at most 63, beginning and ending with a letter or a digit.
bool is_label_word(std::string_view text) {
  if (text.empty() || text.size() > 63) return false;
  for (char c : text) {
    if (!absl::ascii_isalnum(c) && c != '-' && c != '_' && c != '.') return false;
  }
  return absl::ascii_isalnum(text.front()) && absl::ascii_isalnum(text.back());
}

}  // namespace

bool is_label_key(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return is_label_word(text);
  return is_dns_subdomain(text.substr(0, slash)) && is_label_word(text.substr(slash + 1));
}

bool is_label_value(std::string_view text) {
  return text.empty() || is_label_word(text);
}

}  // namespace collage::engine
