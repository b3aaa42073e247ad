#include "base/compress.h"

#include <gtest/gtest.h>

namespace collage::base {
namespace {

TEST(Compress, GivesBackWhatItWasGiven) {
  std::string noise;
  for (int i = 0; i < 100'000; ++i) noise += static_cast<char>((i * 2654435761U) >> 13);
  for (const std::string& data : {std::string(), std::string("a"), std::string(100'000, 'a'), noise}) {
    const auto result = decompress(compress(data), data.size());
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(*result, data);
  }
}

TEST(Compress, WhatIsAlikeBecomesShort) {
  EXPECT_LT(compress(std::string(100'000, 'a')).size(), 1000u);
}

TEST(Compress, ABombIsNotUnpacked) {
  const std::string bomb = compress(std::string(10'000'000, 'a'));
  EXPECT_EQ(decompress(bomb, 100'000).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(Compress, DamageIsNoticed) {
  const std::string data = std::string(1000, 'a') + std::string(1000, 'b');
  const std::string whole = compress(data);
  EXPECT_EQ(decompress("", 9).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(decompress("{\"id\":1}", 9).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(decompress(whole + "x", 9000).status().code(), absl::StatusCode::kInvalidArgument);
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_FALSE(decompress(whole.substr(0, i), 9000).ok()) << i;
    std::string flipped = whole;
    flipped[i] = static_cast<char>(flipped[i] ^ 0x40);
    const auto result = decompress(flipped, 9000);
    EXPECT_TRUE(!result.ok() || *result == data) << i;
  }
}

}  // namespace
}  // namespace collage::base
