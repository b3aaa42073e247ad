#include "operator/engine/backends.h"

#include <gtest/gtest.h>

namespace collage::engine {
namespace {

std::shared_ptr<const Backend> backend(const std::string& name, const std::string& uid = "") {
  auto result = std::make_shared<Backend>();
  result->spec.name = name;
  result->uid = uid;
  return result;
}

TEST(Backends, ANewOneReplacesTheOldWhichItsUsersKeep) {
  Backends backends;
  backends.set(backend("fast", "1"));
  EXPECT_EQ(backends.get("slow"), nullptr);
  const auto old = backends.get("fast");
  ASSERT_NE(old, nullptr);
  backends.set(backend("fast", "2"));
  EXPECT_EQ(old->uid, "1");
  EXPECT_EQ(backends.get("fast")->uid, "2");
  ASSERT_EQ(backends.list().size(), 1u);
  backends.remove("fast");
  backends.remove("fast");
  EXPECT_TRUE(backends.list().empty());
  EXPECT_EQ(old->uid, "1");
}

}  // namespace
}  // namespace collage::engine
