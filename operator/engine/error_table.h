#pragma once

#include "absl/status/status.h"

namespace collage::engine {

enum class Operation { kCreate, kDelete, kAttach, kDetach, kExpand, kModify, kSnapshot };

// What an error means for the operation that ended with it (contract A). One table for all callers.
enum class ErrorClass {
  kUnderWay,    // it may still be running: repeat with the same arguments until a final answer
  kFailed,      // nothing is in progress; repeat with back-off
  kReschedule,  // nothing is in progress; another node or segment may do
  kInfeasible,  // will not work until somebody changes something; repeat slowly (5 min)
};
ErrorClass classify(Operation operation, const absl::Status& status);

}  // namespace collage::engine
