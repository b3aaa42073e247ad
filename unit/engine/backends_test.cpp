#include "operator/engine/backends.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace collage::engine {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const Backend> backend(const std::string& name, const std::string& uid = "") {
  auto result = std::make_shared<Backend>();
  result->spec.name = name;
  result->uid = uid;
  return result;
}

TEST(Backends, AMissingOneIsNamedWithThoseThatThereAre) {
  Backends backends;
  EXPECT_EQ(backends.get("fast"), nullptr);
  EXPECT_THAT(std::string(backends.require("fast").status().message()),
              HasSubstr("StorageBackend \"fast\" does not exist"));
  EXPECT_THAT(std::string(backends.require("fast").status().message()), HasSubstr("there is none at all"));
  backends.set(backend("slow"));
  backends.set(backend("disk"));
  const absl::Status status = backends.require("fast").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("those in use are disk, slow"));
}

TEST(Backends, ANewOneReplacesTheOldWhichItsUsersKeep) {
  Backends backends;
  backends.set(backend("fast", "1"));
  const auto old = backends.require("fast");
  ASSERT_TRUE(old.ok());
  backends.set(backend("fast", "2"));
  EXPECT_EQ((*old)->uid, "1");
  EXPECT_EQ(backends.get("fast")->uid, "2");
  ASSERT_EQ(backends.list().size(), 1u);
  backends.remove("fast");
  backends.remove("fast");
  EXPECT_TRUE(backends.list().empty());
  EXPECT_EQ((*old)->uid, "1");
}

}  // namespace
}  // namespace collage::engine
