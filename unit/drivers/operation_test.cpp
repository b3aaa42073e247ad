#include "drivers/operation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "drivers/registry.h"
#include "unit/drivers/storage.h"

namespace collage::drivers {

namespace {

using absl::StatusCode;
using base::Context;
using base::Json;
using ::testing::HasSubstr;

std::unique_ptr<testing::Storage> storage_of(const std::string& name) {
  for (const Kind& kind : kinds()) {
    if (kind.info.kind == name) return testing::make_storage(kind);
  }
  return nullptr;
}

TEST(Operation, VerbsComeBackTheSame) {
  for (Verb verb : {Verb::kProbe, Verb::kCreate, Verb::kRemove, Verb::kFind, Verb::kInspect, Verb::kList,
                    Verb::kAttach, Verb::kDetach, Verb::kFence, Verb::kCapacity, Verb::kHolds}) {
    EXPECT_EQ(verb_from_string(to_string(verb)).value(), verb);
  }
  for (const char* other : {"", "Create", "format", "create "}) {
    EXPECT_EQ(verb_from_string(other).status().code(), StatusCode::kInvalidArgument) << other;
  }
}

TEST(Operation, WrongArgumentsAreRefusedByTheirName) {
  const auto storage = storage_of("image");
  const auto driver = storage->driver();
  struct Case {
    const char* name;
    Verb verb;
    Json arguments;
    const char* message;
  };
  const Case cases[] = {
      {"no object", Verb::kList, Json::array(), "arguments: must be an object"},
      {"null", Verb::kList, nullptr, "arguments: must be an object"},
      {"no id", Verb::kRemove, Json::object(), "arguments.id: is missing"},
      {"empty id", Verb::kInspect, {{"id", ""}}, "arguments.id: is missing"},
      {"id is a number", Verb::kInspect, {{"id", 3}}, "arguments.id: must be a string"},
      {"no name", Verb::kFind, Json::object(), "arguments.name: is missing"},
      {"no node", Verb::kAttach, {{"id", "x"}}, "arguments.nodeID: is missing"},
      {"capability",
       Verb::kAttach,
       {{"id", "x"}, {"nodeID", "n"}, {"capability", "rw"}},
       "capability: must be an object"},
      {"read-only",
       Verb::kAttach,
       {{"id", "x"}, {"nodeID", "n"}, {"readOnly", "yes"}},
       "arguments.readOnly: must be a boolean"},
      {"initialize", Verb::kProbe, {{"initialize", 1}}, "arguments.initialize: must be a boolean"},
      {"max is text", Verb::kList, {{"max", "all"}}, "arguments.max: must be an integer"},
      {"max is negative", Verb::kList, {{"max", -1}}, "arguments.max: must be between"},
      {"where", Verb::kCapacity, {{"where", {{"zone", 1}}}}, "arguments.where"},
      {"create", Verb::kCreate, {{"size", 1}}, "create.size: unknown field"},
      {"no such verb", static_cast<Verb>(99), Json::object(), "unknown verb"},
  };
  for (const Case& c : cases) {
    const auto answer = carry_out(Context(), *driver, c.verb, c.arguments);
    EXPECT_EQ(answer.status().code(), StatusCode::kInvalidArgument) << c.name;
    EXPECT_THAT(std::string(answer.status().message()), HasSubstr(c.message)) << c.name;
  }
}

TEST(Operation, APartThatTheDriverLacksIsUnimplemented) {
  const auto storage = storage_of("local");
  const auto driver = storage->driver();
  for (Verb verb : {Verb::kAttach, Verb::kDetach}) {
    const auto answer = carry_out(Context(), *driver, verb, {{"id", "x"}, {"nodeID", "n"}});
    EXPECT_EQ(answer.status().code(), StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(answer.status().message()), HasSubstr("local"));
  }
}

TEST(Operation, ResultsHaveTheirDocumentedShape) {
  const auto storage = storage_of("image");
  const auto driver = storage->driver();
  const auto run = [&](Verb verb, const Json& arguments) {
    return carry_out(Context(), *driver, verb, arguments).value();
  };
  EXPECT_TRUE(run(Verb::kProbe, Json::object()).at("systemID").is_string());
  EXPECT_TRUE(run(Verb::kFind, {{"name", "pvc-1"}}).is_null());
  const Json volume =
      run(Verb::kCreate, {{"name", "pvc-1"}, {"requiredBytes", 1 << 20}, {"capabilities", {Json::object()}}});
  EXPECT_EQ(volume.at("id"), "pvc-1");
  EXPECT_EQ(volume.at("capacityBytes"), 1 << 20);
  EXPECT_EQ(run(Verb::kFind, {{"name", "pvc-1"}}), volume);
  EXPECT_EQ(run(Verb::kInspect, {{"id", "pvc-1"}}), volume);
  EXPECT_EQ(run(Verb::kList, Json::object()), Json({{"volumes", Json::array({volume})}}));
  EXPECT_EQ(run(Verb::kAttach, {{"id", "pvc-1"}, {"nodeID", "node-a"}}).at("publishContext").at("image"),
            "pvc-1/image.0");
  EXPECT_EQ(run(Verb::kDetach, {{"id", "pvc-1"}, {"nodeID", "node-a"}}), Json::object());
  EXPECT_GT(run(Verb::kCapacity, Json::object()).at("availableBytes").get<int64_t>(), 0);
  EXPECT_EQ(run(Verb::kRemove, {{"id", "pvc-1"}}), Json::object());
}

}  // namespace

}  // namespace collage::drivers
