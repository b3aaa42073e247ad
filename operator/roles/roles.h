#pragma once

#include <string_view>

namespace collage::roles {

// What the one binary can be. run() gets the arguments from the role's name on and answers the exit code.
struct Role {
  std::string_view name;
  std::string_view summary;
  int (*run)(int argc, char** argv);
};

int run_operator(int argc, char** argv);
int run_node(int argc, char** argv);
int run_doctor(int argc, char** argv);
int run_version(int argc, char** argv);

inline constexpr Role kRoles[] = {
    {"operator", "reconciles StorageBackends, claims, volumes and attachments (a Deployment)", run_operator},
    {"node", "mounts volumes on one node for its kubelet (a DaemonSet)", run_node},
    {"doctor", "looks at an installation from outside and says what is wrong with it", run_doctor},
    {"version", "prints the version and the kinds of storage compiled in", run_version},
};

}  // namespace collage::roles
