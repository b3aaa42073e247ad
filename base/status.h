#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace collage::base {

// Adds what was being done, on the way up: "attach fast/vol-1 to node-a: <message>". OK stays OK; the code is
// kept.
absl::Status annotate(const absl::Status& status, std::string_view doing);

// The canonical code for an errno value, message "<doing>: <strerror>".
// ENOENT NOT_FOUND, EEXIST ALREADY_EXISTS, EACCES EPERM PERMISSION_DENIED, ENOSPC EDQUOT RESOURCE_EXHAUSTED,
// EBUSY FAILED_PRECONDITION, EROFS FAILED_PRECONDITION, ETIMEDOUT DEADLINE_EXCEEDED, EINTR ABORTED, EINVAL
// INVALID_ARGUMENT, else INTERNAL.
absl::Status errno_status(int error, std::string_view doing);

// "NOT_FOUND: the message", for a person; "OK" when ok.
std::string to_string(const absl::Status& status);

// "OK", "Canceled", "DeadlineExceeded", ...: as Go's gRPC library prints codes, which is what dashboards
// match on.
std::string_view grpc_code_name(absl::StatusCode code);

}  // namespace collage::base

// Early return on error. Use inside functions that return absl::Status or absl::StatusOr<T>.
#define COLLAGE_RETURN_IF_ERROR(expression)                             \
  do {                                                                  \
    if (absl::Status status_or_ok = (expression); !status_or_ok.ok()) { \
      return status_or_ok;                                              \
    }                                                                   \
  } while (false)

#define COLLAGE_CONCAT_INNER(a, b) a##b
#define COLLAGE_CONCAT(a, b) COLLAGE_CONCAT_INNER(a, b)
#define COLLAGE_ASSIGN_OR_RETURN(lhs, expression) \
  COLLAGE_ASSIGN_OR_RETURN_IMPL(COLLAGE_CONCAT(status_or_, __LINE__), lhs, expression)
#define COLLAGE_ASSIGN_OR_RETURN_IMPL(result, lhs, expression) \
  auto result = (expression);                                  \
  if (!result.ok()) {                                          \
    return result.status();                                    \
  }                                                            \
  lhs = std::move(result).value()
