#include "base/quantity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace collage::base {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kMin = std::numeric_limits<int64_t>::min();

TEST(Quantity, Parses) {
  const struct {
    const char* text;
    int64_t bytes;
  } cases[] = {{"0", 0},
               {"10Gi", 10737418240},
               {"1.5G", 1500000000},
               {"1e3", 1000},
               {"1E3", 1000},
               {"1E", 1000000000000000000},
               {"1Ei", 1152921504606846976},
               {"500m", 1},
               {"1500m", 2},
               {"2000m", 2},
               {"1n", 1},
               {"1u", 1},
               {"-1", -1},
               {"+1", 1},
               {"-500m", -1},
               {"-1500m", -2},
               {"1.5Ki", 1536},
               {".5Ki", 512},
               {"5.", 5},
               {"0.1Ki", 103},
               {"12e-1", 2},
               {"1200e-2", 12},
               {"0e999", 0},
               {"0.000Ei", 0},
               {"1e-999", 1},
               {"1k", 1000},
               {"1M", 1000000},
               {"1T", 1000000000000},
               {"1P", 1000000000000000},
               {"1Mi", 1048576},
               {"1Ti", 1099511627776},
               {"1Pi", 1125899906842624},
               {"00010", 10},
               {"0.000000000000000000000001", 1},
               {"0.5Ei", 576460752303423488},
               {"7.999999999999999999Ei", 9223372036854775807},
               {"9223372036854775807", kMax},
               {"9223372036854775806.5", kMax},
               {"-9223372036854775808", kMin},
               {"-8Ei", kMin}};
  for (const auto& c : cases) {
    const auto bytes = parse_quantity(c.text);
    ASSERT_TRUE(bytes.ok()) << c.text << ": " << bytes.status();
    EXPECT_EQ(*bytes, c.bytes) << c.text;
  }
}

TEST(Quantity, RefusesWhatIsNone) {
  for (const char* text :
       {"",   "+",   "-",    ".",  "Gi",   "1 Gi", " 1",  "1 ",  "1gi",   "1GI", "1K",  "1.2.3",
        "1e", "1e+", "1ee3", "e3", "1Gi5", "0x10", "--1", "1,5", "1e1.5", "ten", "1\n", "1e99999"}) {
    const auto bytes = parse_quantity(text);
    EXPECT_EQ(bytes.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(bytes.status().message()), ::testing::HasSubstr("is not a quantity")) << text;
  }
  EXPECT_EQ(parse_quantity(std::string(5000, '1')).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Quantity, RefusesWhatIsBeyondInt64) {
  for (const char* text : {"8Ei", "9223372036854775808", "9223372036854775807.1", "-9223372036854775809",
                           "1e19", "10E", "1e999", "99999999999999999999999999Ei", "-9Ei"}) {
    EXPECT_EQ(parse_quantity(text).status().code(), absl::StatusCode::kOutOfRange) << text;
  }
}

TEST(Quantity, PrintsTheShortestBinaryForm) {
  const struct {
    int64_t bytes;
    const char* text;
  } cases[] = {{0, "0"},
               {1, "1"},
               {1000, "1000"},
               {1023, "1023"},
               {1024, "1Ki"},
               {1536, "1536"},
               {1048576, "1Mi"},
               {1610612736, "1536Mi"},
               {1073741824, "1Gi"},
               {int64_t{1} << 60, "1Ei"},
               {kMax, "9223372036854775807"},
               {kMin, "-8Ei"},
               {-1024, "-1Ki"}};
  for (const auto& c : cases) {
    EXPECT_EQ(format_quantity(c.bytes), c.text);
    EXPECT_EQ(*parse_quantity(c.text), c.bytes);
  }
}

TEST(Quantity, PrintsForAPerson) {
  const struct {
    int64_t bytes;
    const char* text;
  } cases[] = {{0, "0 B"},        {1023, "1023 B"},        {1024, "1 KiB"},
               {1536, "1.5 KiB"}, {1610612736, "1.5 GiB"}, {1048575, "1 MiB"},
               {-2048, "-2 KiB"}, {kMax, "8 EiB"}};
  for (const auto& c : cases) EXPECT_EQ(human_bytes(c.bytes), c.text);
}

}  // namespace
}  // namespace collage::base
