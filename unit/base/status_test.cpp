#include "base/status.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "absl/status/statusor.h"
#include "absl/strings/cord.h"

namespace collage::base {
namespace {

TEST(Status, AnnotateAddsWhatWasDoneAndKeepsTheRest) {
  absl::Status status = absl::NotFoundError("no such volume");
  status.SetPayload("type", absl::Cord("payload"));
  const absl::Status annotated = annotate(status, "attach fast/vol-1 to node-a");
  EXPECT_EQ(annotated.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(annotated.message(), "attach fast/vol-1 to node-a: no such volume");
  EXPECT_EQ(annotated.GetPayload("type"), absl::Cord("payload"));
  EXPECT_TRUE(annotate(absl::OkStatus(), "x").ok());
}

TEST(Status, ErrnoMapsToCanonicalCodes) {
  const struct {
    int error;
    absl::StatusCode code;
  } cases[] = {{ENOENT, absl::StatusCode::kNotFound},
               {EEXIST, absl::StatusCode::kAlreadyExists},
               {EACCES, absl::StatusCode::kPermissionDenied},
               {EPERM, absl::StatusCode::kPermissionDenied},
               {ENOSPC, absl::StatusCode::kResourceExhausted},
               {EDQUOT, absl::StatusCode::kResourceExhausted},
               {EBUSY, absl::StatusCode::kFailedPrecondition},
               {EROFS, absl::StatusCode::kFailedPrecondition},
               {ETIMEDOUT, absl::StatusCode::kDeadlineExceeded},
               {EINTR, absl::StatusCode::kAborted},
               {EINVAL, absl::StatusCode::kInvalidArgument},
               {EIO, absl::StatusCode::kInternal}};
  for (const auto& c : cases) EXPECT_EQ(errno_status(c.error, "x").code(), c.code) << c.error;
  EXPECT_EQ(errno_status(ENOENT, "open /a").message(), "open /a: No such file or directory");
}

TEST(Status, PrintsForAPerson) {
  EXPECT_EQ(to_string(absl::OkStatus()), "OK");
  EXPECT_EQ(to_string(absl::NotFoundError("the message")), "NOT_FOUND: the message");
}

absl::StatusOr<std::string> text_or(const absl::Status& status) {
  if (!status.ok()) return status;
  return "text";
}

absl::StatusOr<size_t> length_of(const absl::Status& first, const absl::Status& second) {
  COLLAGE_RETURN_IF_ERROR(first);
  COLLAGE_ASSIGN_OR_RETURN(const std::string text, text_or(second));
  COLLAGE_ASSIGN_OR_RETURN(const std::string again, text_or(second));
  return text.size() + again.size();
}

TEST(Status, MacrosReturnTheFirstError) {
  EXPECT_EQ(*length_of(absl::OkStatus(), absl::OkStatus()), 8u);
  EXPECT_EQ(length_of(absl::AbortedError("1"), absl::InternalError("2")).status(), absl::AbortedError("1"));
  EXPECT_EQ(length_of(absl::OkStatus(), absl::InternalError("2")).status(), absl::InternalError("2"));
}

}  // namespace
}  // namespace collage::base
