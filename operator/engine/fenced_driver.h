#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "drivers/driver.h"

namespace collage::engine {

// The driver as a process may use it that shares its work with others by a lease: `leads` is asked before
// each call, and guards the context of the call, so that a call of several steps stops between them too. Not
// OK: nothing is begun, and the call answers that status, which must be none that is final for an operation
// (CANCELLED). Thread safe as the driver and `leads` are.
std::shared_ptr<drivers::Driver> make_fenced_driver(std::shared_ptr<drivers::Driver> driver,
                                                    std::function<absl::Status()> leads);

}  // namespace collage::engine
