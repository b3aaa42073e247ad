#include "operator/reconcile/config_map_intents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "unit/testing/fake_api_server.h"

namespace collage::reconcile {
namespace {

using ::testing::ElementsAre;
using testing::FakeApiServer;
using testing::Fault;
using ::testing::IsEmpty;
using ::testing::Pair;

struct ConfigMapIntentsTest : ::testing::Test {
  base::Json stored() { return *api.get(kube::kConfigMaps, "collage/collage-intents-fast"); }
  // As the engine does: what did not arrive is sent again. A broken connection may still be in the client's
  // pool.
  absl::StatusOr<std::string> save(const std::map<std::string, std::string>& entries,
                                   const std::string& version) {
    absl::StatusOr<std::string> saved = intents.save(context, "fast", entries, version);
    for (int i = 0; i < 5 && absl::IsUnavailable(saved.status()); ++i)
      saved = intents.save(context, "fast", entries, version);
    return saved;
  }
  // As another process would, or a person.
  void write_behind(const std::map<std::string, std::string>& entries) {
    api.update(kube::kConfigMaps, "collage/collage-intents-fast", [&](base::Json& json) {
      json["data"] = entries;
      json["metadata"]["annotations"]["collage.storage/write"] = "another-1";
    });
  }
  FakeApiServer api;
  std::unique_ptr<kube::Client> client = api.client();
  ConfigMapIntents intents{*client, "collage"};
  base::Context context;
};

TEST_F(ConfigMapIntentsTest, NothingWasStoredYet) {
  const auto snapshot = intents.load(context, "fast");
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->version, "");
  EXPECT_THAT(snapshot->entries, IsEmpty());
}

TEST_F(ConfigMapIntentsTest, WhatIsSavedIsLoaded) {
  const auto first = intents.save(context, "fast", {{"uid-1", "a"}}, "");
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = intents.save(context, "fast", {{"uid-1", "a"}, {"uid-2", "b"}}, *first);
  ASSERT_TRUE(second.ok()) << second.status();
  const auto snapshot = ConfigMapIntents(*client, "collage").load(context, "fast");
  ASSERT_TRUE(snapshot.ok());
  EXPECT_EQ(snapshot->version, *second);
  EXPECT_THAT(snapshot->entries, ElementsAre(Pair("uid-1", "a"), Pair("uid-2", "b")));
  EXPECT_EQ(base::get_string(stored(), "/metadata/labels/collage.storage~1backend"), "fast");
}

TEST_F(ConfigMapIntentsTest, ASaveOverSomebodyElsesWriteIsRefused) {
  const auto first = intents.save(context, "fast", {{"uid-1", "a"}}, "");
  ASSERT_TRUE(first.ok());
  write_behind({{"uid-9", "theirs"}});
  EXPECT_TRUE(absl::IsAborted(intents.save(context, "fast", {}, *first).status()));
  EXPECT_EQ(stored()["data"], base::Json({{"uid-9", "theirs"}}));
}

TEST_F(ConfigMapIntentsTest, AFirstSaveWhereSomebodyElseWasFirstIsRefused) {
  ASSERT_TRUE(ConfigMapIntents(*client, "collage").save(context, "fast", {{"uid-9", "theirs"}}, "").ok());
  EXPECT_TRUE(absl::IsAborted(intents.save(context, "fast", {}, "").status()));
}

TEST_F(ConfigMapIntentsTest, AConfigMapThatWasDeletedIsNotMadeAnewBlindly) {
  const auto first = intents.save(context, "fast", {{"uid-1", "a"}}, "");
  ASSERT_TRUE(first.ok());
  api.erase(kube::kConfigMaps, "collage/collage-intents-fast");
  EXPECT_TRUE(absl::IsAborted(intents.save(context, "fast", {{"uid-1", "a"}}, *first).status()));
}

TEST_F(ConfigMapIntentsTest, AWriteWhoseAnswerWasLostIsReadBack) {
  const auto first = intents.save(context, "fast", {}, "");
  ASSERT_TRUE(first.ok());
  api.fail_next("update", "configmaps", Fault::drop_after());
  const auto second = intents.save(context, "fast", {{"uid-1", "a"}}, *first);
  ASSERT_TRUE(second.ok()) << second.status();
  const auto third = save({{"uid-2", "b"}}, *second);
  EXPECT_TRUE(third.ok()) << third.status();
}

TEST_F(ConfigMapIntentsTest, AWriteThatDidNotArriveIsAnError) {
  const auto first = intents.save(context, "fast", {}, "");
  ASSERT_TRUE(first.ok());
  api.fail_next("update", "configmaps", Fault::answer(500, "InternalError"), 20);
  EXPECT_FALSE(intents.save(context, "fast", {{"uid-1", "a"}}, *first).ok());
  api.clear_faults();
  EXPECT_TRUE(save({{"uid-1", "a"}}, *first).ok());
}

TEST_F(ConfigMapIntentsTest, AWriteThatCannotBeReadBackIsRecognisedByTheNext) {
  const auto first = intents.save(context, "fast", {}, "");
  ASSERT_TRUE(first.ok());
  api.fail_next("update", "configmaps", Fault::drop_after());
  api.fail_next("get", "configmaps", Fault::answer(500, "InternalError"), 20);
  EXPECT_FALSE(intents.save(context, "fast", {{"uid-1", "a"}}, *first).ok());
  api.clear_faults();
  // The caller knows only the version from before.
  const auto third = save({{"uid-1", "a"}, {"uid-2", "b"}}, *first);
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_EQ(stored()["data"].size(), 2u);
}

TEST_F(ConfigMapIntentsTest, ALostWriteUnderSomebodyElsesIsNotTakenForOurs) {
  const auto first = intents.save(context, "fast", {}, "");
  ASSERT_TRUE(first.ok());
  api.fail_next("update", "configmaps", Fault::drop_after());
  api.fail_next("get", "configmaps", Fault::answer(500, "InternalError"), 20);
  EXPECT_FALSE(intents.save(context, "fast", {{"uid-1", "a"}}, *first).ok());
  api.clear_faults();
  write_behind({{"uid-9", "theirs"}});
  EXPECT_TRUE(absl::IsAborted(save({}, *first).status()));
}

}  // namespace
}  // namespace collage::reconcile
