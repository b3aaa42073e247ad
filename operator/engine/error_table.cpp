#include "operator/engine/error_table.h"

#include <cstdlib>

#include "drivers/driver.h"

namespace collage::engine {
namespace {

ErrorClass of_create(absl::StatusCode code) {
  if (code == absl::StatusCode::kResourceExhausted) return ErrorClass::kReschedule;
  if (code == absl::StatusCode::kInvalidArgument) return ErrorClass::kInfeasible;
  return ErrorClass::kFailed;
}

ErrorClass of_expand(absl::StatusCode code) {
  if (code == absl::StatusCode::kResourceExhausted) return ErrorClass::kUnderWay;
  if (code == absl::StatusCode::kInvalidArgument || code == absl::StatusCode::kOutOfRange ||
      code == absl::StatusCode::kNotFound) {
    return ErrorClass::kInfeasible;
  }
  return ErrorClass::kFailed;
}

ErrorClass of_modify(absl::StatusCode code) {
  if (code == absl::StatusCode::kResourceExhausted) return ErrorClass::kUnderWay;
  if (code == absl::StatusCode::kInvalidArgument) return ErrorClass::kInfeasible;
  return ErrorClass::kFailed;
}

ErrorClass of_snapshot(absl::StatusCode code) {
  return code == absl::StatusCode::kResourceExhausted ? ErrorClass::kUnderWay : ErrorClass::kFailed;
}

// A final answer: the operation has ended, what now depends on which it was.
ErrorClass of_final(Operation operation, absl::StatusCode code) {
  switch (operation) {
    case Operation::kCreate:
      return of_create(code);
    case Operation::kExpand:
      return of_expand(code);
    case Operation::kModify:
      return of_modify(code);
    case Operation::kSnapshot:
      return of_snapshot(code);
    case Operation::kDelete:
    case Operation::kAttach:
      return ErrorClass::kFailed;
    case Operation::kDetach:
      // Whatever went wrong, NOT_FOUND included: the volume may still be attached. Only OK means detached.
      return ErrorClass::kUnderWay;
  }
  std::abort();
}

}  // namespace

ErrorClass classify(Operation operation, const absl::Status& status) {
  if (!drivers::is_final(status)) return ErrorClass::kUnderWay;
  if (status.ok()) return ErrorClass::kFailed;  // no error: nothing is in progress
  return of_final(operation, status.code());
}

}  // namespace collage::engine
