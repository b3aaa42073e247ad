#include "operator/node/journal.h"

#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "unit/testing/temp_dir.h"

namespace collage::node {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

VolumeRecord a_record(const std::string& handle = "fast/node-a/pvc-1") {
  VolumeRecord record;
  record.handle = handle;
  record.kind = "local";
  record.boot_id = "boot";
  record.state = StageState::kStaged;
  record.staging_path = "/stage";
  record.access = drivers::LoopFile{"/images/pvc-1/image.0"};
  record.fs_type = "xfs";
  record.options = "noatime,nouuid";
  record.read_only = true;
  record.access_mode = drivers::AccessMode::kSingleNodeMultiWriter;
  record.reached = {"/dev/loop3", "7:3", 65024, 1234567890123};
  record.publications = {{"/pod/1",
                          {.state = PublishState::kPublished,
                           .read_only = true,
                           .lost = true,
                           .healed_at = base::parse_rfc3339("2026-03-04T05:06:07.000008Z"),
                           .pod = {"team", "web-0", "uid-1"}}},
                         {"/pod/2", {PublishState::kUnpublishing, false}}};
  return record;
}

class JournalTest : public ::testing::Test {
 protected:
  std::string path_of(const std::string& handle) const { return Journal(directory_.path()).path_of(handle); }
  void put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

  testing::TempDir directory_;
  Journal journal_{directory_.path()};
};

TEST_F(JournalTest, KeepsEveryField) {
  for (const drivers::Access& access :
       {drivers::Access(drivers::LoopFile{"/i"}), drivers::Access(drivers::Directory{"/d"}),
        drivers::Access(drivers::BlockDevice{"serial", {"a", "b"}})}) {
    VolumeRecord record = a_record();
    record.access = access;
    ASSERT_TRUE(journal_.write(record).ok());
    const auto loaded = journal_.load();
    ASSERT_TRUE(loaded.ok());
    ASSERT_EQ(loaded->records.size(), 1u);
    EXPECT_EQ(*to_json(loaded->records[0]), *to_json(record));
    EXPECT_EQ(loaded->records[0].publications, record.publications);
    EXPECT_EQ(loaded->records[0].reached, record.reached);
  }
}

TEST_F(JournalTest, OneFileAVolumeWhateverItsHandle) {
  const std::string long_id(500, 'x');
  const std::vector<std::string> handles = {
      "a/b", "a/b/c", "a/..", "a/%2F", "a/b.json", "a/\n", "A/b", "a/" + long_id, "a/" + long_id + "y"};
  for (const std::string& handle : handles) ASSERT_TRUE(journal_.write(a_record(handle)).ok()) << handle;
  const auto loaded = journal_.load();
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded->records.size(), handles.size());
  EXPECT_TRUE(loaded->set_aside.empty());
  for (const std::string& handle : handles) ASSERT_TRUE(journal_.remove(handle).ok());
  EXPECT_TRUE(base::list_directory(directory_.path())->empty());
}

TEST_F(JournalTest, WhatCannotBeReadIsSetAsideAndNothingElseSuffers) {
  ASSERT_TRUE(journal_.write(a_record("fast/good")).ok());
  put(path_of("fast/empty"), "");
  put(path_of("fast/torn"), R"({"version":1,"handle":"fast/to)");
  put(path_of("fast/list"), "[]");
  put(path_of("fast/word"), base::dump_json([] {
        base::Json json = *to_json(a_record("fast/word"));
        json["state"] = "floating";
        return json;
      }()));
  put(path_of("fast/other-name"), base::dump_json(*to_json(a_record("fast/name"))));
  const auto loaded = journal_.load();
  ASSERT_TRUE(loaded.ok());
  ASSERT_EQ(loaded->records.size(), 1u);
  EXPECT_EQ(loaded->records[0].handle, "fast/good");
  EXPECT_THAT(loaded->set_aside, ::testing::SizeIs(5));
  EXPECT_THAT(loaded->set_aside, ::testing::Each(EndsWith(".json.corrupt")));
  // The bytes are kept for a person, and not looked at again.
  EXPECT_EQ(*base::read_file(path_of("fast/torn") + ".corrupt"), R"({"version":1,"handle":"fast/to)");
  EXPECT_TRUE(journal_.load()->set_aside.empty());
}

TEST_F(JournalTest, ARecordOfANewerProgramIsNotTakenForDamage) {
  base::Json json = *to_json(a_record("fast/v"));
  json["version"] = 2;
  put(path_of("fast/v"), base::dump_json(json));
  const auto loaded = journal_.load();
  ASSERT_TRUE(loaded.ok());
  EXPECT_TRUE(loaded->records.empty());
  EXPECT_THAT(loaded->set_aside, ElementsAre(EndsWith(".json.newer")));
}

TEST_F(JournalTest, ADiskThatRefusesIsNotFinal) {
  Journal full(directory_.path(),
               [](const std::string&) { return absl::ResourceExhaustedError("no space left on device"); });
  const absl::Status refused = full.write(a_record());
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("no space left"));
  EXPECT_TRUE(base::list_directory(directory_.path())->empty());
}

TEST_F(JournalTest, ADirectoryThatCannotBeMadeIsAnError) {
  put(directory_ / "file", "");
  Journal journal(directory_ / "file/volumes");
  EXPECT_FALSE(journal.load().ok());
  EXPECT_FALSE(journal.write(a_record()).ok());
}

TEST_F(JournalTest, AnAccessWithoutAMounterIsNotJournaled) {
  VolumeRecord record = a_record();
  record.access = drivers::FuseProcess{"/usr/bin/s3fs", {}, {{"key", base::Secret("hush")}}};
  EXPECT_EQ(journal_.write(record).code(), absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(base::list_directory(directory_.path())->empty());
}

}  // namespace
}  // namespace collage::node
