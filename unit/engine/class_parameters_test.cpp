#include "operator/engine/class_parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace collage::engine {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TEST(ClassParameters, AreTakenApart) {
  const auto parsed =
      parse_class_parameters({{"backend", "fast"}, {"csi.storage.k8s.io/fstype", "xfs"}, {"speed", "7"}});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->backend, "fast");
  EXPECT_EQ(parsed->fs_type, "xfs");
  EXPECT_THAT(parsed->driver, UnorderedElementsAre(Pair("speed", "7")));
  EXPECT_THAT(parsed->secrets, IsEmpty());
}

TEST(ClassParameters, OlderNamesOfTheFileSystemAreKnown) {
  for (const char* key : {"fstype", "fsType", "FSTYPE"}) {
    const auto parsed = parse_class_parameters({{"backend", "fast"}, {key, "ext4"}});
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->fs_type, "ext4");
    EXPECT_THAT(parsed->driver, IsEmpty()) << key;
  }
}

TEST(ClassParameters, ShorthandFillsTheSecretsThatAreNotGiven) {
  const auto parsed = parse_class_parameters({{"backend", "fast"},
                                              {"csi.storage.k8s.io/secret-name", "all"},
                                              {"csi.storage.k8s.io/secret-namespace", "ns"},
                                              {"csi.storage.k8s.io/node-stage-secret-name", "stage"},
                                              {"csi.storage.k8s.io/node-stage-secret-namespace", "ns2"}});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->secrets.size(), 7u);
  EXPECT_EQ(parsed->secrets.at("node-stage").name, "stage");
  EXPECT_EQ(parsed->secrets.at("node-stage").name_space, "ns2");
  for (const char* use : {"provisioner", "controller-publish", "node-publish", "controller-expand",
                          "node-expand", "controller-modify"}) {
    EXPECT_EQ(parsed->secrets.at(use).name, "all") << use;
    EXPECT_EQ(parsed->secrets.at(use).name_space, "ns") << use;
  }
}

TEST(ClassParameters, RefuseWithTheParametersName) {
  struct Case {
    std::string_view name;
    drivers::StringMap parameters;
    std::string message;
  };
  const Case cases[] = {
      {"no backend", {{"speed", "7"}}, "StorageClass parameter \"backend\": is missing"},
      {"empty backend", {{"backend", ""}}, "StorageClass parameter \"backend\": must name a StorageBackend"},
      {"unknown key",
       {{"backend", "a"}, {"csi.storage.k8s.io/foo", "1"}},
       "\"csi.storage.k8s.io/foo\": is not known"},
      {"unknown secret",
       {{"backend", "a"}, {"csi.storage.k8s.io/mount-secret-name", "1"}},
       "\"csi.storage.k8s.io/mount-secret-name\": is not known"},
      {"fstype twice",
       {{"backend", "a"}, {"fstype", "xfs"}, {"csi.storage.k8s.io/fstype", "xfs"}},
       "is also given by \"fstype\""},
      {"fstype in two spellings",
       {{"backend", "a"}, {"fstype", "xfs"}, {"fsType", "xfs"}},
       "is also given by \"fstype\""},
      {"name alone",
       {{"backend", "a"}, {"csi.storage.k8s.io/secret-name", "s"}},
       "\"csi.storage.k8s.io/secret-namespace\": a secret needs both"},
      {"namespace alone",
       {{"backend", "a"}, {"csi.storage.k8s.io/node-publish-secret-namespace", "s"}},
       "\"csi.storage.k8s.io/node-publish-secret-name\": a secret needs both"},
  };
  for (const Case& one : cases) {
    const auto status = parse_class_parameters(one.parameters).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << one.name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(one.message)) << one.name;
  }
}

const TemplateValues kValues = {"pvc-1", "team-a", "data", {{"team.io/secret", "mine"}}};

TEST(SecretTemplate, IsFilled) {
  const auto secret = resolve_secret(
      {"${pvc.name}-${pvc.annotations['team.io/secret']}.${pv.name}", "${pvc.namespace}"}, kValues);
  ASSERT_TRUE(secret.ok()) << secret.status();
  EXPECT_EQ(secret->name, "data-mine.pvc-1");
  EXPECT_EQ(secret->name_space, "team-a");
}

TEST(SecretTemplate, RefusesWhatItCannotFill) {
  struct Case {
    ClassParameters::SecretTemplate secret;
    std::string message;
  };
  const Case cases[] = {
      {{"a", "${pvc.name}"}, "${pvc.name} has no value here; a namespace may use"},
      {{"a", "${pvc.annotations['team.io/secret']}"}, "a namespace may use"},
      {{"${pvc.annotations['other']}", "ns"}, "${pvc.annotations['other']} has no value here"},
      {{"${pvc.annotations['']}", "ns"}, "has no value here"},
      {{"${node.name}", "ns"}, "${node.name} has no value here; a name may use"},
      {{"${pv.name", "ns"}, "'$' must begin a token"},
      {{"a$b", "ns"}, "'$' must begin a token"},
      {{"a$", "ns"}, "'$' must begin a token"},
      {{"UPPER", "ns"}, "is no name of a Secret"},
      {{"a", "n.s"}, "is no name of a namespace"},
  };
  for (const Case& one : cases) {
    const auto status = resolve_secret(one.secret, kValues).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << one.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(one.message));
  }
}

// A delete knows no claim: its name is empty, its annotations are gone.
TEST(SecretTemplate, RefusesTheClaimsNameWithoutAClaim) {
  EXPECT_FALSE(resolve_secret({"${pvc.name}", "ns"}, {"pvc-1", "team-a", "", {}}).ok());
  EXPECT_TRUE(resolve_secret({"${pv.name}", "${pvc.namespace}"}, {"pvc-1", "team-a", "", {}}).ok());
}

}  // namespace
}  // namespace collage::engine
