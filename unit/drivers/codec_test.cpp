#include "drivers/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace collage::drivers {

namespace {

using absl::StatusCode;
using base::Json;
using ::testing::HasSubstr;

// Through text, as on the wire.
Json sent(const Json& json) {
  return base::parse_json(base::dump_json(json)).value();
}

CreateRequest a_full_request() {
  return {.name = "pvc-1",
          .required_bytes = std::numeric_limits<int64_t>::max(),
          .limit_bytes = (int64_t{1} << 53) + 1,
          .capabilities = {{.mode = VolumeMode::kBlock, .access_mode = AccessMode::kSingleNodeMultiWriter},
                           {.fs_type = "xfs", .mount_flags = {"noatime", "discard"}}},
          .parameters = {{"allocation", "full"}, {"", "empty key"}, {"a/b~c", "\"quoted\"\n"}},
          .tags = {{kTagCluster, "c"}},
          .requisite = {{{"zone", "a"}}, {{"zone", "b"}, {"rack", "7"}}},
          .preferred = {{{"zone", "b"}}, {}}};
}

void expect_same(const CreateRequest& a, const CreateRequest& b) {
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.required_bytes, b.required_bytes);
  EXPECT_EQ(a.limit_bytes, b.limit_bytes);
  EXPECT_EQ(a.capabilities, b.capabilities);
  EXPECT_EQ(a.parameters, b.parameters);
  EXPECT_EQ(a.tags, b.tags);
  EXPECT_EQ(a.requisite, b.requisite);
  EXPECT_EQ(a.preferred, b.preferred);
}

TEST(Codec, ARequestComesBackTheSame) {
  for (const CreateRequest& request : {a_full_request(), CreateRequest{}}) {
    const auto back = create_request_from_json(sent(to_json(request)));
    ASSERT_TRUE(back.ok()) << back.status();
    expect_same(*back, request);
  }
}

TEST(Codec, EveryModeComesBackTheSame) {
  for (VolumeMode mode : {VolumeMode::kFilesystem, VolumeMode::kBlock}) {
    for (int number = 1; number <= 7; ++number) {
      const VolumeCapability capability{.mode = mode, .access_mode = static_cast<AccessMode>(number)};
      EXPECT_EQ(capability_from_json(sent(to_json(capability))).value(), capability);
    }
  }
}

TEST(Codec, AVolumeComesBackTheSame) {
  const Volume full{.id = "node-a/pvc-1",
                    .name = "pvc-1",
                    .capacity_bytes = int64_t{1} << 60,
                    .context = {{"k", "v"}},
                    .accessible = {{{"zone", "a"}}, {}},
                    .tags = {{"t", ""}},
                    .attached_to = "node-a",
                    .problem = "it is broken"};
  EXPECT_EQ(volume_from_json(sent(to_json(full))).value(), full);
  const Volume least{.id = "x"};
  EXPECT_EQ(to_json(least), Json({{"id", "x"}})) << "defaults are left out";
  EXPECT_EQ(volume_from_json(sent(to_json(least))).value(), least);

  const VolumePage page{.volumes = {full, least}, .next_token = "more"};
  const auto back = volume_page_from_json(sent(to_json(page)));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->volumes, page.volumes);
  EXPECT_EQ(back->next_token, "more");
  EXPECT_TRUE(volume_page_from_json(sent(to_json(VolumePage{}))).value().volumes.empty());
}

TEST(Codec, ACapacityComesBackTheSame) {
  for (const Capacity& capacity :
       {Capacity{}, Capacity{.total_bytes = 3, .available_bytes = 2, .maximum_volume_bytes = 1}}) {
    EXPECT_EQ(capacity_from_json(sent(to_json(capacity))).value(), capacity);
  }
}

TEST(Codec, TextThatIsNoUtf8DoesNotThrow) {
  const auto back = string_map_from_json(sent(to_json(StringMap{{"a", "\xff\xfe"}})));
  EXPECT_TRUE(back.ok()) << back.status();
}

TEST(Codec, WrongRequestsAreRefusedByTheFieldsName) {
  struct Case {
    const char* name;
    Json json;
    const char* message;
  };
  const Case cases[] = {
      {"no object", Json::array(), "create: must be an object"},
      {"name is a number", {{"name", 1}}, "create.name: must be a string"},
      {"size is text", {{"requiredBytes", "1Gi"}}, "create.requiredBytes: must be an integer"},
      {"size is a fraction", {{"requiredBytes", 1.5}}, "create.requiredBytes: must be an integer"},
      {"size beyond int64",
       {{"requiredBytes", std::numeric_limits<uint64_t>::max()}},
       "create.requiredBytes"},
      {"no list", {{"capabilities", Json::object()}}, "create.capabilities: must be a list"},
      {"bad mode", {{"capabilities", {{{"volumeMode", "Tape"}}}}}, "unknown volume mode \"Tape\""},
      {"bad access", {{"capabilities", {{{"accessMode", "RWO"}}}}}, "unknown access mode \"RWO\""},
      {"bad flag", {{"capabilities", {{{"mountFlags", {1}}}}}}, "mountFlags"},
      {"unknown in a capability", {{"capabilities", {{{"encrypted", true}}}}}, "encrypted: unknown field"},
      {"parameters of numbers",
       {{"parameters", {{"iops", 3}}}},
       "create.parameters: \"iops\" must be a string"},
      {"topology of a list", {{"requisite", {1}}}, "create.requisite"},
      {"unknown field", {{"contentSource", "snapshot-1"}}, "create.contentSource: unknown field"},
  };
  for (const Case& c : cases) {
    const auto answer = create_request_from_json(c.json);
    EXPECT_EQ(answer.status().code(), StatusCode::kInvalidArgument) << c.name;
    EXPECT_THAT(std::string(answer.status().message()), HasSubstr(c.message)) << c.name;
  }
}

TEST(Codec, AnswersOfANewerVersionAreRead) {
  EXPECT_EQ(volume_from_json({{"id", "x"}, {"encrypted", true}}).value().id, "x");
  EXPECT_EQ(capacity_from_json({{"totalBytes", 1}, {"inodes", 7}}).value().total_bytes, 1);
  EXPECT_EQ(volume_from_json({{"name", "x"}}).status().code(), StatusCode::kInvalidArgument)
      << "a volume without an id";
}

TEST(Codec, NullIsTheDefault) {
  const auto request =
      create_request_from_json({{"name", nullptr}, {"capabilities", nullptr}, {"tags", nullptr}});
  ASSERT_TRUE(request.ok()) << request.status();
  expect_same(*request, CreateRequest{});
}

}  // namespace

}  // namespace collage::drivers
