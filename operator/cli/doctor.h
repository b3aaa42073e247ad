#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/context.h"
#include "operator/kube/client.h"

// `collage doctor`: is Collage in this cluster whole, and if not, what is missing? Looks from outside,
// through the API server, and changes nothing there.
namespace collage::cli {

struct Finding {
  enum class Grade {
    kGood,
    kNote,  // worth knowing; nothing is broken
    kBad,
  };
  Grade grade;
  std::string subject;  // "StorageBackend fast"
  std::string message;  // what is so; of a bad one also the remedy
};

struct DoctorOptions {
  std::string name_space = "collage-system";  // the operator's
  std::string volume;                         // a directory that is a mounted volume; "" for none
  // A leader renews its Lease every 5 s; one that has not within this time is gone.
  std::chrono::milliseconds lease_patience = std::chrono::seconds(15);
};

// In the order in which a volume comes to be: the API server, the resources, the leader, the agents, the
// backends; last the volume, of which a file is written, read back and removed. Takes up to lease_patience.
std::vector<Finding> examine(const base::Context& context, kube::Client& client,
                             const DoctorOptions& options);

bool healthy(const std::vector<Finding>& findings);
// One line each: "ok    StorageBackend fast  Ready: 2 volumes".
std::string to_text(const std::vector<Finding>& findings);

}  // namespace collage::cli
