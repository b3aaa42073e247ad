// A sanitizer that is not at work finds nothing: each is shown a planted defect, which it must report.
#include <gtest/gtest.h>

#include <memory>
#include <thread>

namespace {

#if defined(__SANITIZE_THREAD__)
TEST(SanitizerDeathTest, ThreadSanitizerSeesAPlantedRace) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        int shared = 0;
        std::thread other([&shared] { ++shared; });
        ++shared;
        other.join();
        std::exit(shared == 2 ? 0 : 1);
      },
      testing::ExitedWithCode(66), "data race");
}
#elif defined(__SANITIZE_ADDRESS__)
TEST(SanitizerDeathTest, AddressSanitizerSeesAPlantedUseAfterFree) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        auto owner = std::make_unique<volatile int>(1);
        volatile int* left = owner.get();
        owner.reset();
        *left = 2;
      },
      "heap-use-after-free");
}

TEST(SanitizerDeathTest, UndefinedBehaviorSanitizerSeesAPlantedOverflow) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        volatile int large = 0x7fffffff;
        large = large + 1;
      },
      "signed integer overflow");
}
#endif

}  // namespace
