// gRPC's callback API hands a call from thread to thread through Abseil's locks. Debian's library is not
// instrumented, so ThreadSanitizer sees none of them, and reports each inlined piece of gRPC's templates as a
// race. What these services call is tested under it in unit/node, without gRPC.
#include <gtest/gtest.h>

#ifdef __SANITIZE_THREAD__
namespace {

class NoGrpc : public ::testing::Environment {
 public:
  void SetUp() override { GTEST_SKIP() << "gRPC's own locks are invisible to ThreadSanitizer"; }
};
const auto* const kNoGrpc = ::testing::AddGlobalTestEnvironment(new NoGrpc);

}  // namespace
#endif
