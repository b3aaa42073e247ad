#include "operator/engine/operation_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/yaml.h"
#include "unit/testing/captured_log.h"

namespace collage::engine {
namespace {

using base::Json;
using ::testing::SizeIs;

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

std::vector<std::string> many(size_t count, size_t padding = 0) {
  std::vector<std::string> objects;
  for (size_t i = 0; i < count; ++i) {
    objects.push_back(base::dump_json({{"id", "0f3c91aa-" + std::to_string(i)},
                                       {"backend", "fast"},
                                       {"verb", "attach"},
                                       {"arguments",
                                        {{"id", "pvc-" + std::to_string(i * 7919)},
                                         {"nodeID", "node-a"},
                                         {"padding", std::string(padding, 'x')}}}}));
  }
  return objects;
}

std::vector<std::string> read_again(const Json& list) {
  std::vector<std::string> objects;
  for (const Json& object : operations_in({{"spec", {{"operations", list}}}}, kOperations))
    objects.push_back(base::dump_json(object));
  return objects;
}

TEST(OperationText, AFewStayLegible) {
  const Json list = list_of(many(5));
  ASSERT_EQ(list.size(), 5u);
  EXPECT_EQ(list[0].get<std::string>(), many(1)[0]);
  EXPECT_EQ(read_again(list), many(5));
  EXPECT_EQ(list_of({}), Json::array());
}

TEST(OperationText, ManyAreOneShortText) {
  const Json list = list_of(many(128));
  ASSERT_EQ(list.size(), 1u);
  EXPECT_LT(list[0].get<std::string>().size() * 5, base::dump_json(Json(many(128))).size());
  EXPECT_EQ(read_again(list), many(128));
}

TEST(OperationText, NoTextBecomesTooLong) {
  auto objects = many(40, 9'000);  // noise would do the same: the limit is of what goes in
  objects.push_back(base::dump_json({{"id", "big"}, {"result", std::string(kMaxOperationText - 100, 'y')}}));
  const auto more = many(3);
  objects.insert(objects.end(), more.begin(), more.end());
  const Json list = list_of(objects);
  EXPECT_GT(list.size(), 3u);
  for (const Json& text : list) EXPECT_LE(text.get<std::string>().size(), kMaxOperationText);
  EXPECT_EQ(read_again(list), objects);
}

TEST(OperationText, WhatCannotBeUnpackedIsLeftOutAndToldOnce) {
  const testing::CapturedLog log;
  const std::string text = list_of(many(128))[0].get<std::string>();
  const Json odd = {"zlib:",
                    "zlib:!",
                    "zlib:AAAA",
                    text.substr(0, text.size() / 2),
                    R"({"id":"a-1","arguments":{"password":"planted)",
                    "\"planted\"",
                    R"(["planted"])",
                    7351};
  const auto node = [&odd](const std::string& name) -> Json {
    return {{"metadata", {{"name", name}}}, {"spec", {{"operations", odd}}}};
  };
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(operations_in(node("node-odd"), kOperations).empty());
  const auto lines = log.with({"cannot be read and is left out", "node=node-odd", "list=/spec/operations"});
  EXPECT_THAT(lines, SizeIs(odd.size())) << "once each, however often they are read";
  EXPECT_THAT(log.with({"node=node-odd", "not base64"}), SizeIs(::testing::Ge(1)));
  EXPECT_THAT(log.with({"node=node-odd", "damaged"}), SizeIs(::testing::Ge(1)));
  EXPECT_THAT(log.with({"node=node-odd", "not JSON at byte"}), SizeIs(1));
  EXPECT_THAT(log.with({"node=node-odd", "not a text"}), SizeIs(1));
  EXPECT_THAT(log.with({"planted"}), SizeIs(0)) << "the reason, never the content";
  EXPECT_THAT(log.with({"7351"}), SizeIs(0));
  EXPECT_TRUE(operations_in(node("node-too"), kOperations).empty());
  EXPECT_THAT(log.with({"node=node-too"}), SizeIs(odd.size())) << "another node's are news";
  EXPECT_EQ(read_again({"zlib:!", text}).size(), 128u);
}

TEST(OperationText, TellsWhetherAListIsTheSame) {
  const Json none = {{"spec", Json::object()}}, one = {{"spec", {{"operations", {"{}"}}}}},
             two = {{"spec", {{"operations", {"{}", "{}"}}}}};
  EXPECT_TRUE(same_list(none, none, kOperations));
  EXPECT_TRUE(same_list(one, one, kOperations));
  EXPECT_FALSE(same_list(none, one, kOperations));
  EXPECT_FALSE(same_list(one, two, kOperations));
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
