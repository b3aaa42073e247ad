#include <cstdio>
#include <string_view>

#include "base/process.h"
#include "operator/roles/roles.h"

// The table of roles: the first argument chooses.
int main(int argc, char** argv) {
  // Before any library starts a thread, so that every thread inherits the mask.
  collage::base::block_signals();
  const std::string_view asked = argc > 1 ? argv[1] : "help";
  for (const auto& role : collage::roles::kRoles) {
    if (asked == role.name) return role.run(argc - 1, argv + 1);
  }
  const bool help = asked == "help" || asked == "--help" || asked == "-h";
  std::FILE* out = help ? stdout : stderr;
  if (!help) std::fprintf(out, "collage: no role is called '%s'\n", argv[1]);
  std::fprintf(out, "usage: collage <role> [options]    (collage <role> --help lists them)\n\n");
  for (const auto& role : collage::roles::kRoles) {
    std::fprintf(out, "  %-10s %s\n", role.name.data(), role.summary.data());
  }
  return help ? 0 : 2;
}
