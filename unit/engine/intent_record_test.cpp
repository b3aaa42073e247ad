#include "operator/engine/intent_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace collage::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kUid[] = "0f8fad5b-d9cb-469f-a165-70867728950e";

IntentRecord a_record() {
  return {.claim = {kUid, "team-a", "data-web-0", {"ReadWriteOnce"}, false, 1073741824, 0},
          .class_name = "fast",
          .class_uid = "7c9e6679-7425-40de-944b-e07fc1f90ae7",
          .segment = {{"local.collage.storage/node", "node-a"}},
          .node = "node-a"};
}

void expect_equal(const IntentRecord& a, const IntentRecord& b) {
  EXPECT_EQ(a.claim.uid, b.claim.uid);
  EXPECT_EQ(a.claim.name_space, b.claim.name_space);
  EXPECT_EQ(a.claim.name, b.claim.name);
  EXPECT_EQ(a.claim.access_modes, b.claim.access_modes);
  EXPECT_EQ(a.claim.block, b.claim.block);
  EXPECT_EQ(a.claim.requested_bytes, b.claim.requested_bytes);
  EXPECT_EQ(a.claim.limit_bytes, b.claim.limit_bytes);
  EXPECT_EQ(a.class_name, b.class_name);
  EXPECT_EQ(a.class_uid, b.class_uid);
  EXPECT_EQ(a.segment, b.segment);
  EXPECT_EQ(a.node, b.node);
}

IntentRecord round_trip(const IntentRecord& record) {
  const auto text = encode_intent(record);
  EXPECT_TRUE(text.ok()) << text.status();
  EXPECT_LE(text->size(), kMaxIntentBytes);
  const auto back = decode_intent(record.claim.uid, *text);
  EXPECT_TRUE(back.ok()) << back.status() << " " << *text;
  return back.value_or(IntentRecord{});
}

TEST(IntentRecord, ComesBackAsItWas) {
  expect_equal(round_trip(a_record()), a_record());

  IntentRecord everything = a_record();
  everything.claim.access_modes = {"ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce"};
  everything.claim.block = true;
  everything.claim.limit_bytes = 2147483648;
  everything.segment = {{"topology.kubernetes.io/zone", "eu-1a"}, {"rack", "7"}};
  everything.node = "node-b";
  expect_equal(round_trip(everything), everything);

  IntentRecord least = a_record();
  least.segment.clear();
  least.node.clear();
  least.class_uid.clear();
  expect_equal(round_trip(least), least);

  for (const char* uid :
       {"not-a-uuid", "0f8fad5bd9cb469fa16570867728950e", "=", "0F8FAD5B-D9CB-469F-A165-70867728950E"}) {
    IntentRecord odd = a_record();
    odd.class_uid = uid;
    expect_equal(round_trip(odd), odd);
  }
}

TEST(IntentRecord, TheSameRecordMakesTheSameText) {
  EXPECT_EQ(*encode_intent(a_record()), *encode_intent(a_record()));
}

TEST(IntentRecord, FitsWithTheLongestNames) {
  IntentRecord longest = a_record();
  longest.claim.name_space = std::string(63, 'n');
  longest.claim.name = std::string(253, 'c');
  longest.claim.access_modes = {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"};
  longest.claim.requested_bytes = std::numeric_limits<int64_t>::max();
  longest.class_name = std::string(253, 's');
  longest.segment = {{"local.collage.storage/node", std::string(63, 'a')}};
  longest.node = std::string(63, 'a');
  const IntentRecord back = round_trip(longest);
  EXPECT_EQ(back.class_name, "") << "left out, the class is found by its UID";
  longest.class_name.clear();
  expect_equal(back, longest);
}

TEST(IntentRecord, LeavesOutTheNodesNameNext) {
  IntentRecord record = a_record();
  record.claim.name = std::string(200, 'c');
  record.segment = {{"topology.kubernetes.io/zone", "eu-1a"}};
  record.node = std::string(253, 'a');
  const IntentRecord back = round_trip(record);
  EXPECT_EQ(back.class_name, "");
  EXPECT_EQ(back.node, "");
  EXPECT_EQ(back.segment, record.segment);
}

TEST(IntentRecord, RefusesWhatCannotFit) {
  IntentRecord record = a_record();
  record.claim.name = std::string(253, 'c');
  for (char key = 'a'; key < 'e'; ++key) record.segment[std::string(40, key)] = std::string(40, 'v');
  const absl::Status status = encode_intent(record).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("512 are allowed: use shorter names, or fewer topology keys"));
}

TEST(IntentRecord, RefusesTextThatIsNone) {
  for (const char* text :
       {"", "{", "[]", "7", "{}", R"({"ns":"a","pvc":"b"})", R"({"ns":"a","pvc":"b","b":0})",
        R"({"ns":"a","pvc":"b","b":1,"m":"Q"})", R"({"ns":"a","pvc":"b","b":1,"scu":"123"})",
        R"({"ns":"a","pvc":"b","b":1,"at":{"k":7}})"}) {
    EXPECT_EQ(decode_intent(kUid, text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(IntentRecord, LeavesFieldsOfALaterVersionAlone) {
  const auto record = decode_intent(kUid, R"({"ns":"a","pvc":"b","b":1,"later":{"x":1}})");
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->claim.uid, kUid);
  EXPECT_THAT(record->claim.access_modes, ElementsAre("ReadWriteOnce"));
}

TEST(IntentRecord, IsRepeatedWhereItWasBegun) {
  const TopologyRequirement place = topology_of(a_record());
  EXPECT_THAT(place.requisite, ElementsAre(a_record().segment));
  EXPECT_THAT(place.preferred, ElementsAre(a_record().segment));
  EXPECT_THAT(topology_of({}).requisite, IsEmpty());
}

}  // namespace
}  // namespace collage::engine
