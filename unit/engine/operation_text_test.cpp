#include "operator/engine/operation_text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/yaml.h"

namespace collage::engine {
namespace {

using base::Json;

TEST(OperationText, ReadsBothListsAndLeavesOutWhatIsNone) {
  const Json node = {
      {"spec", {{"operations", {R"({"id":"a-1","verb":"find"})", "{", R"(["a-2"])", 7, R"({"id":"a-3"})"}}}},
      {"status", {{"operations", Json::array({R"({"id":"a-1","code":"OK","result":{"name":"v"}})"})}}}};
  const auto asked = operations_in(node, kOperations);
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_EQ(asked[0]["verb"], "find");
  EXPECT_EQ(asked[1]["id"], "a-3");
  const auto answers = operations_in(node, kAnswers);
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0]["result"]["name"], "v");
}

TEST(OperationText, NoListIsNoOperation) {
  EXPECT_TRUE(operations_in(Json::object(), kOperations).empty());
  EXPECT_TRUE(operations_in({{"spec", {{"operations", "{}"}}}}, kOperations).empty());
}

TEST(OperationText, TheSchemaAllowsAsMuchAsIsWritten) {
  const auto text = base::read_file(COLLAGE_SOURCE_DIR "/crds/storagenodes.yaml");
  ASSERT_TRUE(text.ok()) << text.status();
  const auto documents = base::yaml_to_json(*text);
  ASSERT_TRUE(documents.ok()) << documents.status();
  for (const std::string half : {"spec", "status"}) {
    const std::string items = "/spec/versions/0/schema/openAPIV3Schema/properties/" + half +
                              "/properties/operations/items/maxLength";
    EXPECT_EQ(base::get_int(documents->front(), items), kMaxOperationText);
  }
}

}  // namespace
}  // namespace collage::engine
