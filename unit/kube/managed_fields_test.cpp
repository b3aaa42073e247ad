#include "operator/kube/managed_fields.h"

#include <gtest/gtest.h>

namespace collage::kube::detail {
namespace {

TEST(WithoutManagedFields, Table) {
  struct Case {
    std::string_view name, text, result;
  };
  const Case cases[] = {
      {"none", R"({"metadata":{"name":"x"}})", R"({"metadata":{"name":"x"}})"},
      {"at the end", R"({"metadata":{"name":"x","managedFields":[{"a":{}}]},"spec":{}})",
       R"({"metadata":{"name":"x"},"spec":{}})"},
      {"at the beginning", R"({"metadata":{"managedFields":[],"name":"x"}})", R"({"metadata":{"name":"x"}})"},
      {"in the middle", R"({"metadata":{"a":1,"managedFields":[[],{}],"name":"x"}})",
       R"({"metadata":{"a":1,"name":"x"}})"},
      {"alone", R"({"metadata":{"managedFields":[1]}})", R"({"metadata":{}})"},
      {"brackets in its strings", R"({"metadata":{"managedFields":[{"f:]\"]}\\":"["}],"name":"x"}})",
       R"({"metadata":{"name":"x"}})"},
      {"in a string of its own", R"({"data":{"a":"\"managedFields\":[1]"}})",
       R"({"data":{"a":"\"managedFields\":[1]"}})"},
      {"twice, as in a list", R"([{"a":1,"managedFields":[1]},{"managedFields":[2],"b":2}])",
       R"([{"a":1},{"b":2}])"},
      {"cut short", R"({"metadata":{"managedFields":[{"a":")", R"({"metadata":{"managedFields":[{"a":")"},
      {"cut short after a backslash", R"({"managedFields":["\)", R"({"managedFields":["\)"},
  };
  for (const Case& each : cases) EXPECT_EQ(without_managed_fields(each.text), each.result) << each.name;
}

}  // namespace
}  // namespace collage::kube::detail
