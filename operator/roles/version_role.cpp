#include <cstdio>

#include "drivers/registry.h"
#include "operator/roles/common.h"
#include "operator/roles/roles.h"

namespace collage::roles {

int run_version(int, char**) {
  std::printf("collage %s\n", kVersion);
  for (const auto& kind : drivers::kinds()) {
    std::printf("  %-10s %s\n", kind.info.kind.c_str(), kind.info.description.c_str());
  }
  return 0;
}

}  // namespace collage::roles
