#include "base/random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace collage::base {
namespace {

using ::testing::MatchesRegex;

TEST(Random, UuidIsOfVersion4) {
  std::set<std::string> seen;
  for (int i = 0; i < 200; ++i) {
    const std::string uuid = random_uuid();
    ASSERT_EQ(uuid.size(), 36u);
    for (const size_t at : {8, 13, 18, 23}) EXPECT_EQ(uuid[at], '-');
    EXPECT_EQ(uuid[14], '4');
    EXPECT_NE(std::string("89ab").find(uuid[19]), std::string::npos);
    EXPECT_EQ(uuid.find_first_not_of("0123456789abcdef-"), std::string::npos);
    EXPECT_TRUE(seen.insert(uuid).second);
  }
}

TEST(Random, UnitIsInRangeAndSpread) {
  double least = 1, most = 0;
  for (int i = 0; i < 1000; ++i) {
    const double value = random_unit();
    ASSERT_GE(value, 0);
    ASSERT_LT(value, 1);
    least = std::min(least, value);
    most = std::max(most, value);
  }
  EXPECT_LT(least, 0.1);
  EXPECT_GT(most, 0.9);
}

TEST(Random, HexHasTwoDigitsAByte) {
  EXPECT_EQ(random_hex(0), "");
  EXPECT_EQ(random_hex(600).size(), 1200u);  // more than getrandom gives at once without a signal
  EXPECT_NE(random_hex(16), random_hex(16));
  EXPECT_NE(random_uint64(), random_uint64());
}

TEST(Sha256, KnowsItsVectors) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace collage::base
