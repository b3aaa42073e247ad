#include "operator/engine/error_table.h"

#include <gtest/gtest.h>

#include "drivers/driver.h"

namespace collage::engine {
namespace {

using absl::StatusCode;

// The contract, part A, written out: a row a code, a column an operation.
// U under way, F failed, R reschedule, I infeasible.
struct Row {
  StatusCode code;
  const char* classes;  // create delete attach detach expand modify snapshot
};
constexpr Row kTable[] = {
    {StatusCode::kOk, "FFFFFFF"},
    {StatusCode::kCancelled, "UUUUUUU"},
    {StatusCode::kUnknown, "FFFUFFF"},
    {StatusCode::kInvalidArgument, "IFFUIIF"},
    {StatusCode::kDeadlineExceeded, "UUUUUUU"},
    {StatusCode::kNotFound, "FFFUIFF"},
    {StatusCode::kAlreadyExists, "FFFUFFF"},
    {StatusCode::kPermissionDenied, "FFFUFFF"},
    {StatusCode::kResourceExhausted, "RFFUUUU"},
    {StatusCode::kFailedPrecondition, "FFFUFFF"},
    {StatusCode::kAborted, "UUUUUUU"},
    {StatusCode::kOutOfRange, "FFFUIFF"},
    {StatusCode::kUnimplemented, "FFFUFFF"},
    {StatusCode::kInternal, "FFFUFFF"},
    {StatusCode::kUnavailable, "UUUUUUU"},
    {StatusCode::kDataLoss, "FFFUFFF"},
    {StatusCode::kUnauthenticated, "FFFUFFF"},
};
constexpr Operation kOperations[] = {Operation::kCreate,  Operation::kDelete, Operation::kAttach,
                                     Operation::kDetach,  Operation::kExpand, Operation::kModify,
                                     Operation::kSnapshot};

char letter(ErrorClass error_class) {
  switch (error_class) {
    case ErrorClass::kUnderWay:
      return 'U';
    case ErrorClass::kFailed:
      return 'F';
    case ErrorClass::kReschedule:
      return 'R';
    case ErrorClass::kInfeasible:
      return 'I';
  }
  return '?';
}

TEST(ErrorTable, SaysWhatTheContractSays) {
  ASSERT_EQ(std::size(kTable), 17u);
  for (const Row& row : kTable) {
    std::string said;
    for (Operation operation : kOperations) said += letter(classify(operation, absl::Status(row.code, "x")));
    EXPECT_EQ(said, row.classes) << absl::StatusCodeToString(row.code);
  }
}

TEST(ErrorTable, ACodeOfTheFutureIsFinal) {
  // absl turns codes that it does not know into UNKNOWN.
  const absl::Status status(static_cast<StatusCode>(99), "x");
  EXPECT_TRUE(drivers::is_final(status));
  EXPECT_EQ(classify(Operation::kCreate, status), ErrorClass::kFailed);
  EXPECT_EQ(classify(Operation::kDetach, status), ErrorClass::kUnderWay);
}

TEST(ErrorTable, FinalIsWhatIsNotUnderWay) {
  for (const Row& row : kTable) {
    EXPECT_EQ(drivers::is_final(absl::Status(row.code, "x")), row.classes[0] != 'U')
        << absl::StatusCodeToString(row.code);
  }
}

}  // namespace
}  // namespace collage::engine
