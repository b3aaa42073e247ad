#include "base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace collage::base {
namespace {

using ::testing::HasSubstr;

TEST(Json, ParsesAndPrints) {
  const auto value = parse_json(R"({"b":[1,-2,3.5,true,null],"a":"\u00e4"})");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(dump_json(*value), "{\"a\":\"\xc3\xa4\",\"b\":[1,-2,3.5,true,null]}");
  EXPECT_EQ(dump_json_pretty(*parse_json(R"({"a":1})")), "{\n  \"a\": 1\n}");
}

TEST(Json, SaysWhereItIsNotJson) {
  for (const char* text : {"", "{", "[1,]", "{\"a\":}", "nul", "\"\xff\"", "1 2", "[1e999999]"}) {
    const auto value = parse_json(text);
    EXPECT_EQ(value.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(value.status().message()), ::testing::StartsWith("not JSON")) << text;
  }
  EXPECT_THAT(std::string(parse_json("[1,]").status().message()), HasSubstr("byte 4"));
  EXPECT_THAT(std::string(parse_json("[1,]").status().message()),
              ::testing::Not(HasSubstr("json.exception")));
}

// What is parsed may be a Secret, and the message goes to logs.
TEST(Json, SaysNothingOfTheTextThatIsNotJson) {
  struct Case {
    std::string_view name, text, reason;
  };
  for (const Case& c : std::initializer_list<Case>{
           {"cut short in a value", R"({"data":{"password":"planted)", "missing closing quote"},
           {"cut short in a key", R"({"data":{"planted)", "missing closing quote"},
           {"wrong escape", R"({"password":"planted\q"})", "forbidden character after backslash"},
           {"wrong code point", R"({"password":"planted\ud800planted"})", "surrogate"},
           {"not UTF-8", "{\"password\":\"planted\xff\"}", "ill-formed UTF-8"},
           {"control character", "{\"password\":\"planted\nplanted\"}", "control character"},
           {"no literal", R"({"password":planted})", "invalid literal"},
           {"half a literal", R"({"password":tr-planted})", "invalid literal"},
           {"bad number", R"({"password":-planted})", "invalid number"},
           {"number that is cut short", R"({"password":7351e)", "invalid number"},
           {"number too large", R"({"password":7351e99999})", "too large"},
           {"two values", R"({"password":"planted" "planted"})", "unexpected string literal"},
           {"quotes the library's own words", R"(["; last read: 'planted)", "missing closing quote"}}) {
    const std::string message(parse_json(c.text).status().message());
    EXPECT_THAT(message, HasSubstr(c.reason)) << c.name;
    for (const char* planted : {"plant", "tr-", "7351", "last read"})
      EXPECT_THAT(message, ::testing::Not(HasSubstr(planted))) << c.name;
  }
  EXPECT_THAT(std::string(parse_json(R"({"a":"planted)").status().message()), HasSubstr("at byte 14: "));
}

TEST(Json, RefusesWhatIsNestedTooDeep) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(parse_json(nested(200)).ok());
  EXPECT_THAT(std::string(parse_json(nested(201)).status().message()),
              HasSubstr("deeper than 200 at byte 200"));
  EXPECT_FALSE(parse_json(std::string(1'000'000, '[')).ok());
  EXPECT_FALSE(parse_json(R"({"a":)" + nested(200) + "}").ok());
  // Brackets in strings are text.
  EXPECT_TRUE(parse_json("\"\\\"" + std::string(500, '[') + "\"").ok());
  // Wide is not deep.
  std::string wide = "[[]";
  for (int i = 0; i < 1000; ++i) wide += ",[]";
  EXPECT_TRUE(parse_json(wide + "]").ok());
}

TEST(Json, ReplacesBytesThatAreNotUtf8) {
  EXPECT_EQ(dump_json(Json("a\xff")), "\"a\xef\xbf\xbd\"");
}

TEST(Json, FindsByPointer) {
  const Json value =
      *parse_json(R"({"metadata":{"name":"x","annotations":{"a.b/c~d":"v"}},"items":[{"n":1}],"":2})");
  EXPECT_EQ(get_string(value, "/metadata/name"), "x");
  EXPECT_EQ(get_string(value, "/metadata/annotations/a.b~1c~0d"), "v");
  EXPECT_EQ(get_int(value, "/items/0/n"), 1);
  EXPECT_EQ(get_int(value, "/"), 2);
  EXPECT_EQ(find(value, ""), &value);
  for (const char* missing : {"/no", "/metadata/name/x", "/items/1", "/items/-", "/items/x", "/items/-1",
                              "metadata", "/metadata/", "/items/99999999999999999999"}) {
    EXPECT_EQ(find(value, missing), nullptr) << missing;
  }
}

TEST(Json, AnswersADefaultForAnotherType) {
  const Json value =
      *parse_json(R"({"s":"1","i":7,"f":7.0,"b":true,"n":null,"huge":18446744073709551615,"neg":-3})");
  EXPECT_EQ(get_string(value, "/i", "otherwise"), "otherwise");
  EXPECT_EQ(get_string(value, "/n", "otherwise"), "otherwise");
  EXPECT_EQ(get_string(value, "/none"), "");
  EXPECT_EQ(get_int(value, "/s", -1), -1);
  EXPECT_EQ(get_int(value, "/f", -1), -1);
  EXPECT_EQ(get_int(value, "/huge", -1), -1);
  EXPECT_EQ(get_int(value, "/neg"), -3);
  EXPECT_TRUE(get_bool(value, "/b"));
  EXPECT_TRUE(get_bool(value, "/i", true));
  EXPECT_FALSE(get_bool(value, "/i"));
}

}  // namespace
}  // namespace collage::base
