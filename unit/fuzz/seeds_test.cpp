// The inputs that the fuzzers begin with, and those that once broke something.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "unit/fuzz/targets.h"

namespace collage::fuzz {
namespace {

struct Target {
  const char* name;
  void (*run)(std::string_view);
};

class Seeds : public ::testing::TestWithParam<Target> {};

TEST_P(Seeds, BreakNothing) {
  const std::filesystem::path folder =
      std::filesystem::path(COLLAGE_SOURCE_DIR) / "unit/fuzz/corpus" / GetParam().name;
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path());
    std::ifstream file(entry.path(), std::ios::binary);
    std::stringstream content;
    content << file.rdbuf();
    const std::string input = content.str();
    GetParam().run(input);
    // And whatever is left of it when it breaks off.
    for (size_t size = 0; size < input.size(); size += 1 + input.size() / 64) {
      GetParam().run(std::string_view(input).substr(0, size));
    }
    ++count;
  }
  EXPECT_GE(count, 3);
}

INSTANTIATE_TEST_SUITE_P(Of, Seeds,
                         ::testing::Values(Target{"watch_stream", watch_stream},
                                           Target{"yaml_backend", yaml_backend}, Target{"journal", journal}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Require, EndsTheProcessThatBrokeAPromise) {
  EXPECT_DEATH(require(false, "the sun rises"), "a broken promise: the sun rises");
  require(true, "nothing");
}

}  // namespace
}  // namespace collage::fuzz
