#include "operator/kube/resource.h"

namespace collage::kube {

std::string Resource::api_version() const {
  if (group.empty()) return std::string(version);
  return std::string(group) + "/" + std::string(version);
}

std::string Key::to_string() const {
  return name_space.empty() ? name : name_space + "/" + name;
}

Key Key::parse(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return {"", std::string(text)};
  return {std::string(text.substr(0, slash)), std::string(text.substr(slash + 1))};
}

}  // namespace collage::kube
