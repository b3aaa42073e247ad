#include "base/yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace collage::base {
namespace {

using ::testing::HasSubstr;

// The one document's JSON text, or the error.
std::string json_of(const std::string& yaml) {
  const auto documents = yaml_to_json(yaml);
  if (!documents.ok()) return std::string(documents.status().message());
  if (documents->size() != 1) return std::to_string(documents->size()) + " documents";
  return dump_json(documents->front());
}

TEST(Yaml, ScalarsFollowTheirForm) {
  const struct {
    const char* yaml;
    const char* json;
  } cases[] = {
      {"plain", "\"plain\""},
      {"\"1\"", "\"1\""},
      {"'true'", "\"true\""},
      {"\"\"", "\"\""},
      {"! 12", "\"12\""},
      {"|\n  a\n  b\n", "\"a\\nb\\n\""},
      {">\n  1\n", "\"1\\n\""},
      {"true", "true"},
      {"True", "true"},
      {"yes", "true"},
      {"On", "true"},
      {"off", "false"},
      {"NO", "false"},
      {"FALSE", "false"},
      {"y", "\"y\""},
      {"tRue", "\"tRue\""},
      {"12", "12"},
      {"-7", "-7"},
      {"+7", "7"},
      {"0", "0"},
      {"0x1F", "31"},
      {"0o17", "15"},
      {"0644", "420"},
      {"089", "89"},
      {"18446744073709551615", "18446744073709551615"},
      {"-9223372036854775808", "-9223372036854775808"},
      {"1.5", "1.5"},
      {"-.5", "-0.5"},
      {"1e3", "1000.0"},
      {"1.", "1.0"},
      {"1e", "\"1e\""},
      {"1.2.3", "\"1.2.3\""},
      {".", "\".\""},
      {".inf", "\".inf\""},
      {"-.Inf", "\"-.Inf\""},
      {".nan", "\".nan\""},
      {"1e999", "\"1e999\""},
      {"0x", "\"0x\""},
      {"0b11", "\"0b11\""},
      {"10Gi", "\"10Gi\""},
      {"1:30", "\"1:30\""},
      {"2026-11-22", "\"2026-11-22\""},
      {"!!str 12", "\"12\""},
      {"!!str true", "\"true\""},
      {"!!int 12", "12"},
      {"!!float 12", "12"},
      {"!!bool yes", "true"},
  };
  for (const auto& c : cases)
    EXPECT_EQ(json_of("a: " + std::string(c.yaml)), "{\"a\":" + std::string(c.json) + "}") << c.yaml;
}

TEST(Yaml, NullsHaveSeveralForms) {
  EXPECT_EQ(json_of("{a: ~, b: null, c: Null, d: , e: '~'}"),
            R"({"a":null,"b":null,"c":null,"d":null,"e":"~"})");
  EXPECT_EQ(json_of("a:\nb: 1"), R"({"a":null,"b":1})");
}

TEST(Yaml, ReadsWhatKubectlReads) {
  EXPECT_EQ(
      json_of(R"(
apiVersion: collage.storage/v1beta1
kind: StorageBackend
metadata: {name: fast, labels: {"on": "yes"}}
spec:
  image:
    directory: /srv/share   # a comment
  storageClasses:
  - name: fast
    default: true
    parameters: {fsType: xfs, count: "3"}
  limits: {maxVolumes: 500, maxVolumeSize: 1Ti}
)"),
      R"({"apiVersion":"collage.storage/v1beta1","kind":"StorageBackend","metadata":{"labels":{"on":"yes"},"name":"fast"},)"
      R"("spec":{"image":{"directory":"/srv/share"},"limits":{"maxVolumeSize":"1Ti","maxVolumes":500},)"
      R"("storageClasses":[{"default":true,"name":"fast","parameters":{"count":"3","fsType":"xfs"}}]}})");
}

TEST(Yaml, AnswersEveryDocumentButEmptyOnes) {
  const auto documents = yaml_to_json("---\na: 1\n---\n# only a comment\n---\n\n---\n- 2\n...\n");
  ASSERT_TRUE(documents.ok()) << documents.status();
  ASSERT_EQ(documents->size(), 2u);
  EXPECT_EQ(dump_json((*documents)[0]), R"({"a":1})");
  EXPECT_EQ(dump_json((*documents)[1]), "[2]");
  EXPECT_TRUE(yaml_to_json("")->empty());
  EXPECT_TRUE(yaml_to_json("# nothing\n")->empty());
}

TEST(Yaml, JsonIsYaml) {
  EXPECT_EQ(json_of(R"({"a":[1,"2",{"b":null}]})"), R"({"a":[1,"2",{"b":null}]})");
}

TEST(Yaml, AliasesAreCopied) {
  EXPECT_EQ(json_of("a: &x {b: [1, &y two]}\nc: *x\nd: *y"),
            R"({"a":{"b":[1,"two"]},"c":{"b":[1,"two"]},"d":"two"})");
}

TEST(Yaml, ScalarKeysBecomeStrings) {
  EXPECT_EQ(json_of("1: a\ntrue: b\nnull: c\n1.5: d"), R"({"1":"a","1.5":"d","null":"c","true":"b"})");
}

TEST(Yaml, RefusesWithLineAndColumn) {
  const struct {
    const char* yaml;
    const char* message;
  } cases[] = {
      {"a: 1\nb: 2\na: 3", "duplicate key \"a\" at line 3, column 1"},
      {"x:\n  k: 1\n  \"k\": 2", "duplicate key \"k\" at line 3, column 3"},
      {"1: a\n\"1\": b", "duplicate key \"1\" at line 2, column 1"},
      {"? [a]\n: 1", "a key that is not a scalar at line 1, column 3"},
      {"? {a: b}\n: 1", "a key that is not a scalar at line 1, column 3"},
      {"a: !secret x", "unknown tag !secret at line 1, column 4"},
      {"a: !!binary x", "unknown tag tag:yaml.org,2002:binary at line 1, column 4"},
      {"a: !mine {b: 1}", "unknown tag !mine at line 1, column 4"},
      {"a: !!set {b: 1}", "unknown tag tag:yaml.org,2002:set at line 1, column 4"},
      {"a: !!int yes", "\"yes\" is not of type int at line 1, column 4"},
      {"base: &b {x: 1}\nc:\n  <<: *b",
       "merge keys (<<) are not supported: write the fields out at line 3, column 3"},
      {"a: *nothing", "at line 1, column 4"},
      {"a: [1, 2", "at line 1"},
      {"a: \"x", "not YAML: "},
      {"a: b: c", "at line 1, column 5"},
      {"a:\n\t- b", "at line 2"},
      {", a", "a value cannot begin with this character at line 1, column 1"},
      {"a: /srv/\xd1/x", "what is not UTF-8 at line 1, column 4"},
      {"a: \"\xed\xa0\x80\"", "what is not UTF-8 at line 1, column 4"},
      {"a: \xc0\xaf", "what is not UTF-8 at line 1, column 4"},
      {"&a [*a]", "an alias to a value that contains it at line 1, column 5"},
  };
  for (const auto& c : cases) {
    const auto documents = yaml_to_json(c.yaml);
    EXPECT_EQ(documents.status().code(), absl::StatusCode::kInvalidArgument) << c.yaml;
    EXPECT_THAT(std::string(documents.status().message()), HasSubstr(c.message)) << c.yaml;
  }
}

TEST(Yaml, TextOfAnyLanguageIsKept) {
  const std::string text = "\xc3\xa9\xe2\x82\xac\xf0\x9f\x92\xbe";
  EXPECT_EQ(yaml_to_json("a: " + text).value().at(0).at("a"), text);
}

TEST(Yaml, RefusesAliasesThatExplode) {
  std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
    for (int n = 1; n < 10; ++n) bomb += "," + before;
    bomb += "]\n";
  }
  EXPECT_THAT(json_of(bomb), HasSubstr("aliases expand beyond 1 MiB at line"));
  std::string large = "a: &a " + std::string(300'000, 'x') + "\n";
  for (const char* key : {"b", "c", "d"}) large += std::string(key) + ": *a\n";
  EXPECT_THAT(json_of(large), ::testing::StartsWith("{\"a\":"));
  EXPECT_THAT(json_of(large + "e: *a\n"), HasSubstr("beyond 1 MiB"));
}

TEST(Yaml, RefusesWhatIsNestedTooDeep) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(json_of(nested(200)), nested(200));
  EXPECT_THAT(json_of(nested(201)), HasSubstr("nested deeper than 200 at line 1, column 201"));
  EXPECT_FALSE(yaml_to_json(nested(100'000)).ok());
  EXPECT_FALSE(yaml_to_json(std::string(100'000, '[')).ok());
}

}  // namespace
}  // namespace collage::base
