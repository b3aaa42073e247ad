#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "base/files.h"
#include "base/yaml.h"
#include "drivers/operation.h"

namespace collage::engine {
namespace {

using base::Json;

class StorageNodeCrd : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto text = base::read_file(COLLAGE_SOURCE_DIR "/crds/storagenodes.yaml");
    ASSERT_TRUE(text.ok()) << text.status();
    auto documents = base::yaml_to_json(*text);
    ASSERT_TRUE(documents.ok()) << documents.status();
    crd_ = documents->front();
  }
  std::vector<std::string> values(const std::string& pointer) const {
    const Json* list =
        base::find(crd_, "/spec/versions/0/schema/openAPIV3Schema/properties" + pointer + "/enum");
    return list == nullptr ? std::vector<std::string>{} : list->get<std::vector<std::string>>();
  }
  Json crd_;
};

// What the operator may ask for is what a node can carry out.
TEST_F(StorageNodeCrd, KnowsEveryVerb) {
  std::vector<std::string> verbs;
  for (int verb = 0; drivers::verb_from_string(drivers::to_string(static_cast<drivers::Verb>(verb))).ok();
       ++verb) {
    verbs.push_back(drivers::to_string(static_cast<drivers::Verb>(verb)));
  }
  EXPECT_EQ(values("/spec/properties/operations/items/properties/verb"), verbs);
}

TEST_F(StorageNodeCrd, KnowsEveryCode) {
  std::vector<std::string> codes;
  for (int code = 0; code <= 16; ++code)
    codes.push_back(absl::StatusCodeToString(static_cast<absl::StatusCode>(code)));
  EXPECT_EQ(values("/status/properties/operations/items/properties/code"), codes);
}

}  // namespace
}  // namespace collage::engine
