#pragma once

#include <string>

#include "absl/status/status.h"
#include "base/context.h"
#include "base/json.h"
#include "drivers/driver.h"

// A call of the Driver port as a value: {verb, arguments} and {code, message, result}. The operator's on-node
// proxy makes one, the node that reaches the storage carries it out on its own driver.
namespace collage::drivers {

enum class Verb {
  kProbe,
  kCreate,
  kRemove,
  kFind,
  kInspect,
  kList,
  kAttach,
  kDetach,
  kFence,
  kCapacity,
  kHolds,  // a question to the node itself, not to its driver: has it got this volume staged, mounted or
           // open?
};
std::string to_string(Verb verb);  // "probe", "create", ...
absl::StatusOr<Verb> verb_from_string(const std::string& text);

// Carries one out. arguments: {"initialize","expectedSystemID"} | CreateRequest | {"id"} | {"name"} |
// {"token","max"} |
// {"id","nodeID","capability","readOnly"} | {"id","nodeID"} | {"id","nodeID"} | {"parameters","where"} |
// {"id"}. result: {"systemID"} | Volume | {} | Volume or null | Volume | VolumePage | {"publishContext"} | {}
// | {} | Capacity |
// {"held","where","bootID"}. kHolds is UNIMPLEMENTED here: the node answers it before its driver is asked.
absl::StatusOr<base::Json> carry_out(const base::Context& context, Driver& driver, Verb verb,
                                     const base::Json& arguments);

}  // namespace collage::drivers
