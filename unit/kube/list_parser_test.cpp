#include "operator/kube/list_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace collage::kube::detail {
namespace {

using base::Json;
using ::testing::ElementsAre;

TEST(ListParser, HandsOverEachItemWithoutManagedFields) {
  const Json list = {
      {"kind", "ConfigMapList"},
      {"metadata", {{"resourceVersion", "42"}, {"continue", "next"}, {"managedFields", {1, 2}}}},
      {"items",
       {{{"metadata",
          {{"name", "a"},
           {"managedFields", {{{"manager", "x"}, {"fieldsV1", {{"f:data", Json::object()}}}}}}}},
         {"data", {{"managedFields", "a key of its own"}}}},
        {{"metadata", {{"name", "b"}, {"annotations", {{"items", "x"}}}}},
         {"items", {{{"nested", true}}}}}}}};
  std::vector<Json> items;
  const auto page = parse_list(list.dump(), [&](Json& item) {
    items.push_back(item);
    return absl::OkStatus();
  });
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->resource_version, "42");
  EXPECT_EQ(page->continue_token, "next");
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0],
            (Json{{"metadata", {{"name", "a"}}}, {"data", {{"managedFields", "a key of its own"}}}}));
  EXPECT_EQ(items[1], list["items"][1]);  // arrays and keys named as the list's own stay
}

TEST(ListParser, ItemsMayComeBeforeTheMetadata) {
  std::vector<std::string> names;
  const auto page =
      parse_list(R"({"items":[{"metadata":{"name":"a"}}],"metadata":{"resourceVersion":"7"},"kind":"X"})",
                 [&](Json& item) {
                   names.push_back(item["metadata"]["name"]);
                   return absl::OkStatus();
                 });
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->resource_version, "7");
  EXPECT_EQ(page->continue_token, "");
  EXPECT_THAT(names, ElementsAre("a"));
}

TEST(ListParser, TheCallbacksErrorEndsIt) {
  int calls = 0;
  const auto page = parse_list(R"({"items":[{"a":1},{"a":2},{"a":3}]})", [&](Json&) {
    return ++calls == 2 ? absl::AbortedError("enough") : absl::OkStatus();
  });
  EXPECT_EQ(page.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(calls, 2);
}

// As much as any other JSON from outside may be: values are destroyed and printed recursively.
TEST(ListParser, NestingHasALimit) {
  const auto parse = [](size_t depth) {  // of all
    const std::string inner = std::string(depth - 3, '[') + std::string(depth - 3, ']');
    int calls = 0;
    const auto page = parse_list("{\"items\":[{\"a\":" + inner + "}]}", [&](Json& item) {
      EXPECT_TRUE(base::parse_json(base::dump_json(item)).ok());
      ++calls;
      return absl::OkStatus();
    });
    EXPECT_EQ(calls, page.ok() ? 1 : 0);
    return page.status();
  };
  EXPECT_TRUE(parse(200).ok());
  for (const size_t depth : {size_t{201}, size_t{250}, size_t{1} << 20}) {
    const absl::Status status = parse(depth);
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_EQ(status.message(), "the list is nested deeper than 200");
  }
}

TEST(ListParser, WhatIsNoListIsUnavailable) {
  const auto ignore = [](Json&) { return absl::OkStatus(); };
  for (const char* text : {"", "[]", "7", "{\"items\":[{\"a\":1},", "<html>"}) {
    EXPECT_EQ(parse_list(text, ignore).status().code(), absl::StatusCode::kUnavailable) << text;
  }
  EXPECT_TRUE(parse_list(R"({"items":null,"metadata":{"resourceVersion":"1"}})", ignore).ok());
}

TEST(LineSplitter, PutsLinesTogetherWhereverTheyAreCut) {
  const std::string text = "{\"a\":1}\n\n{\"b\":2}\r\n{\"c\":3}\n";
  for (size_t size = 1; size <= text.size(); ++size) {
    LineSplitter splitter;
    std::vector<std::string> lines;
    for (size_t at = 0; at < text.size(); at += size) {
      ASSERT_TRUE(splitter
                      .add(std::string_view(text).substr(at, size),
                           [&](std::string_view line) {
                             lines.emplace_back(line);
                             return absl::OkStatus();
                           })
                      .ok());
    }
    EXPECT_THAT(lines, ElementsAre("{\"a\":1}", "{\"b\":2}\r", "{\"c\":3}")) << size;
    EXPECT_FALSE(splitter.inside_line());
  }
}

TEST(LineSplitter, KnowsThatItIsInsideALine) {
  LineSplitter splitter;
  ASSERT_TRUE(splitter.add("{\"half", [](std::string_view) { return absl::OkStatus(); }).ok());
  EXPECT_TRUE(splitter.inside_line());
}

}  // namespace
}  // namespace collage::kube::detail
