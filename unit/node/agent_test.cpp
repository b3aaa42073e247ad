#include <fstream>
#include <thread>

#include "base/files.h"
#include "unit/node/node_fixture.h"

namespace collage::node {
namespace {

using base::Context;
using drivers::AccessMode;
using drivers::VolumeMode;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StubProbe;

constexpr char kPod1[] = "/kubelet/pods/1/mount";
constexpr char kPod2[] = "/kubelet/pods/2/mount";

std::string text(const absl::Status& status) {
  return std::string(status.message());
}

class AgentTest : public testing::NodeFixture {
 protected:
  void SetUp() override {
    start();
    ASSERT_TRUE(agent->recover({}).ok());
    set_backends();
    ASSERT_TRUE(wait_ready(true));
  }
  void restart() {
    start();
    ASSERT_TRUE(agent->recover({}).ok());
    set_backends();
    ASSERT_TRUE(wait_ready(true));
  }
};

// ---- stage

TEST_F(AgentTest, StageAndPublishMountOnceEach) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(stage().ok());
    ASSERT_TRUE(publish(kPod1).ok());
  }
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging, kPod1));
  EXPECT_EQ(kernel.calls("mount"), 1);
  EXPECT_EQ(kernel.calls("bind"), 1);
  EXPECT_EQ(agent->status().mounts_held, 1);
  EXPECT_EQ(journal_of(kVolume)["state"], "staged");
}

TEST_F(AgentTest, StageAsSomethingElseIsAlreadyExists) {
  ASSERT_TRUE(stage().ok());
  struct Case {
    std::string_view name;
    std::function<void(StageRequest&)> change;
  };
  const Case cases[] = {
      {"another file system", [](StageRequest& r) { r.capability.fs_type = "xfs"; }},
      {"raw block", [](StageRequest& r) { r.capability.mode = VolumeMode::kBlock; }},
      {"read-only", [](StageRequest& r) { r.read_only = true; }},
      {"a reader's access mode",
       [](StageRequest& r) { r.capability.access_mode = AccessMode::kSingleNodeReaderOnly; }},
      {"other options", [](StageRequest& r) { r.capability.mount_flags = {"noatime"}; }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    StageRequest request = staging_request();
    c.change(request);
    const absl::Status refused = stage(request);
    EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists);
    EXPECT_THAT(text(refused), HasSubstr(kVolume));
    EXPECT_THAT(text(refused), HasSubstr(staging));
  }
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging));
}

TEST_F(AgentTest, AVolumeIsStagedAtOnePath) {
  ASSERT_TRUE(stage().ok());
  StageRequest elsewhere = staging_request();
  elsewhere.staging_path = "/elsewhere";
  const absl::Status refused = stage(elsewhere);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text(refused), HasSubstr(staging));
}

TEST_F(AgentTest, BadStageRequestsNameTheField) {
  struct Case {
    std::string_view name;
    std::function<void(StageRequest&)> change;
    absl::StatusCode code;
    std::string_view message;
  };
  const Case cases[] = {
      {"no volume", [](StageRequest& r) { r.handle = ""; }, absl::StatusCode::kInvalidArgument, "volume_id"},
      {"no id in the handle", [](StageRequest& r) { r.handle = "fast/"; }, absl::StatusCode::kInvalidArgument,
       "volume_id"},
      {"no backend in the handle", [](StageRequest& r) { r.handle = "v1"; },
       absl::StatusCode::kInvalidArgument, "volume_id"},
      {"no path", [](StageRequest& r) { r.staging_path = ""; }, absl::StatusCode::kInvalidArgument,
       "staging_target_path"},
      {"a relative path", [](StageRequest& r) { r.staging_path = "a/b"; }, absl::StatusCode::kInvalidArgument,
       "staging_target_path"},
      {"a path that climbs", [](StageRequest& r) { r.staging_path = "/a/../etc"; },
       absl::StatusCode::kInvalidArgument, "staging_target_path"},
      {"the root", [](StageRequest& r) { r.staging_path = "/"; }, absl::StatusCode::kInvalidArgument,
       "staging_target_path"},
      {"an unknown backend", [](StageRequest& r) { r.handle = "gone/v1"; },
       absl::StatusCode::kFailedPrecondition, "StorageBackend gone"},
      {"a file system that is not made", [](StageRequest& r) { r.capability.fs_type = "vfat"; },
       absl::StatusCode::kInvalidArgument, "vfat"},
      {"an access mode that is not had",
       [](StageRequest& r) { r.capability.access_mode = AccessMode::kMultiNodeMultiWriter; },
       absl::StatusCode::kFailedPrecondition, "MULTI_NODE_MULTI_WRITER"},
      {"an option of another kind of mount", [](StageRequest& r) { r.capability.mount_flags = {"bind"}; },
       absl::StatusCode::kInvalidArgument, "bind"},
      {"a volume of another storage system",
       [](StageRequest& r) { r.volume_context["collage.storage/system-id"] = "old-one"; },
       absl::StatusCode::kFailedPrecondition, "old-one"},
      {"a driver that refuses", [](StageRequest& r) { r.publish_context["refuse"] = "yes"; },
       absl::StatusCode::kFailedPrecondition, "not attached here"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    StageRequest request = staging_request();
    c.change(request);
    const absl::Status refused = stage(request);
    EXPECT_EQ(refused.code(), c.code) << refused;
    EXPECT_THAT(text(refused), HasSubstr(c.message));
  }
  EXPECT_THAT(kernel.mounted(), IsEmpty());
  EXPECT_THAT(kernel.attached(), IsEmpty());
  EXPECT_THAT(journal_files(), IsEmpty());
}

TEST_F(AgentTest, AFinalErrorLeavesNothingBehind) {
  kernel.on_step([](const std::string& step) {
    return step == "mount" ? absl::FailedPreconditionError("/dev/loop0 holds crypto_LUKS") : absl::OkStatus();
  });
  const absl::Status refused = stage();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text(refused), HasSubstr("crypto_LUKS"));
  EXPECT_THAT(kernel.attached(), IsEmpty());
  EXPECT_THAT(journal_files(), IsEmpty());
}

TEST_F(AgentTest, AnErrorThatIsNotFinalLeavesTheNote) {
  kernel.on_step([](const std::string& step) {
    return step == "mount" ? absl::DeadlineExceededError("too slow") : absl::OkStatus();
  });
  EXPECT_EQ(stage().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(journal_of(kVolume)["state"], "staging");
  kernel.on_step({});
  ASSERT_TRUE(unstage().ok());
  EXPECT_THAT(kernel.attached(), IsEmpty());
  EXPECT_THAT(journal_files(), IsEmpty());
}

TEST_F(AgentTest, SecretsAndContextsAreNotJournaled) {
  StageRequest request = staging_request();
  request.volume_context["password"] = "hush-hush";
  request.publish_context["token"] = "hush-hush";
  ASSERT_TRUE(stage(request).ok());
  EXPECT_THAT(journal_of(kVolume).dump(), ::testing::Not(HasSubstr("hush")));
}

// ---- unstage

TEST_F(AgentTest, UnstageWhilePublishedIsRefused) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  const absl::Status refused = unstage();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text(refused), HasSubstr(kPod1));
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging, kPod1));
}

TEST_F(AgentTest, TheWayBackNeedsNoBackend) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  set_backends(false);
  EXPECT_THAT(agent->kinds_wanted(), ElementsAre("stub"))
      << "kubelet could not unmount without the kind's socket";
  ASSERT_TRUE(unpublish(kPod1).ok());
  ASSERT_TRUE(unstage().ok());
  EXPECT_THAT(kernel.mounted(), IsEmpty());
  EXPECT_THAT(kernel.attached(), IsEmpty());
  EXPECT_THAT(agent->kinds_wanted(), IsEmpty());
}

TEST_F(AgentTest, TheWayBackIsIdempotent) {
  EXPECT_TRUE(unpublish(kPod1).ok());
  EXPECT_TRUE(unstage().ok());
  EXPECT_TRUE(agent->unpublish({}, "no-handle-of-ours", kPod1).ok());
  EXPECT_TRUE(agent->unstage({}, "no-handle-of-ours", staging).ok());
  EXPECT_EQ(agent->unstage({}, "", staging).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(stage().ok());
  EXPECT_TRUE(unstage().ok());
  EXPECT_TRUE(unstage().ok());
}

// ---- publish

TEST_F(AgentTest, ASecondPathDependsOnTheAccessMode) {
  struct Case {
    AccessMode mode;
    bool allowed;
  };
  const Case cases[] = {{AccessMode::kSingleNodeWriter, false},
                        {AccessMode::kSingleNodeReaderOnly, false},
                        {AccessMode::kSingleNodeSingleWriter, false},
                        {AccessMode::kSingleNodeMultiWriter, true},
                        {AccessMode::kMultiNodeReaderOnly, true}};
  for (const Case& c : cases) {
    SCOPED_TRACE(static_cast<int>(c.mode));
    capability.access_mode = c.mode;
    ASSERT_TRUE(stage().ok());
    ASSERT_TRUE(publish(kPod1).ok());
    ASSERT_TRUE(publish(kPod1).ok());
    const absl::Status second = publish(kPod2);
    EXPECT_EQ(second.code(), c.allowed ? absl::StatusCode::kOk : absl::StatusCode::kFailedPrecondition)
        << second;
    ASSERT_TRUE(unpublish(kPod1).ok());
    // The first is gone: now the second may.
    EXPECT_TRUE(publish(kPod2).ok());
    ASSERT_TRUE(unpublish(kPod2).ok());
    ASSERT_TRUE(unstage().ok());
  }
}

TEST_F(AgentTest, TheSamePathInAnotherWayIsAlreadyExists) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  EXPECT_EQ(publish(kPod1, true).code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(publish(kPod2, true).ok());
  EXPECT_TRUE(kernel.table().at(kPod2)->read_only);
  EXPECT_FALSE(kernel.table().at(kPod1)->read_only);
}

TEST_F(AgentTest, PublishNeedsAStagedVolume) {
  EXPECT_EQ(publish(kPod1).code(), absl::StatusCode::kFailedPrecondition);
  PublishRequest request = publish_request(kPod1);
  request.staging_path = "";
  EXPECT_EQ(agent->publish({}, request).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(stage().ok());
  request.staging_path = "/elsewhere";
  EXPECT_EQ(agent->publish({}, request).code(), absl::StatusCode::kFailedPrecondition);
  request = publish_request("pods/relative");
  EXPECT_EQ(agent->publish({}, request).code(), absl::StatusCode::kInvalidArgument);
  request = publish_request(kPod1);
  request.capability.mode = VolumeMode::kBlock;
  EXPECT_EQ(agent->publish({}, request).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging));
}

TEST_F(AgentTest, NothingIsPublishedOverAForeignMount) {
  ASSERT_TRUE(stage().ok());
  kernel.mount_foreign(kPod1);
  EXPECT_EQ(publish(kPod1).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging, kPod1));
}

TEST_F(AgentTest, ARawBlockVolumeIsWritableForAllItsUsersOrForNone) {
  capability.mode = VolumeMode::kBlock;
  ASSERT_TRUE(stage().ok());
  EXPECT_THAT(kernel.mounted(), IsEmpty());
  ASSERT_TRUE(publish(kPod1, true).ok());
  ASSERT_TRUE(publish(kPod2, true).ok());
  const absl::Status refused = publish("/kubelet/pods/3/mount");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text(refused), HasSubstr("read-only"));
  ASSERT_TRUE(unpublish(kPod1).ok());
  ASSERT_TRUE(unpublish(kPod2).ok());
  EXPECT_TRUE(publish(kPod1).ok());
}

// ---- what went wrong behind our back

TEST_F(AgentTest, ALostMountIsMadeAgainByTheNextPublish) {
  ASSERT_TRUE(stage().ok());
  kernel.unmount_behind_the_back(staging);
  ASSERT_TRUE(publish(kPod1).ok());
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging, kPod1));
  EXPECT_EQ(agent->status().mounts_healed, 1);
}

TEST_F(AgentTest, RecoveryMountsNothingAndSaysWhatIsStale) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  agent.reset();
  kernel.unmount_behind_the_back(staging);
  start();
  ASSERT_TRUE(agent->recover({}).ok());
  EXPECT_EQ(agent->status().mounts_stale, 1);
  EXPECT_THAT(kernel.mounted(), ElementsAre(kPod1)) << "a pod uses it";
  EXPECT_EQ(kernel.calls("mount"), 1);
}

TEST_F(AgentTest, ARestartLosesNothing) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  restart();
  EXPECT_EQ(agent->status().mounts_held, 1);
  EXPECT_EQ(agent->status().mounts_stale, 0);
  EXPECT_TRUE(stage().ok());
  EXPECT_TRUE(publish(kPod1).ok());
  EXPECT_EQ(kernel.calls("mount") + kernel.calls("bind"), 2);
  EXPECT_EQ(kernel.calls("unmount"), 0);
}

TEST_F(AgentTest, AfterARebootTheJournalForgets) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  agent.reset();
  kernel.reboot();
  boot_id = "boot-2";
  restart();
  EXPECT_THAT(journal_files(), IsEmpty());
  EXPECT_EQ(agent->status().mounts_stale, 0);
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
}

TEST_F(AgentTest, ADamagedJournalIsSetAsideAndTheMountTableTellsTheRest) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  const std::string file = Journal(directory / "volumes").path_of(kVolume);
  std::ofstream(file) << "{\"version\":1,";
  start();
  ASSERT_TRUE(agent->recover({}).ok());
  EXPECT_TRUE(base::exists(file + ".corrupt"));
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging, kPod1))
      << "nothing is unmounted because we forgot why it is there";
  EXPECT_THAT(agent->kinds_wanted(), ElementsAre("stub")) << "kubelet must be able to unmount it";
  // No backend is known: the way back needs none.
  ASSERT_TRUE(unpublish(kPod1).ok());
  ASSERT_TRUE(unstage().ok());
  EXPECT_THAT(kernel.mounted(), IsEmpty());
  EXPECT_THAT(kernel.attached(), IsEmpty());
  EXPECT_THAT(agent->kinds_wanted(), IsEmpty());
}

TEST_F(AgentTest, ADamagedJournalIsRebuiltByTheNextStepForward) {
  ASSERT_TRUE(stage().ok());
  std::ofstream(Journal(directory / "volumes").path_of(kVolume)) << "";
  restart();
  ASSERT_TRUE(publish(kPod1).ok());
  EXPECT_EQ(journal_of(kVolume)["state"], "staged");
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging, kPod1));
}

TEST_F(AgentTest, ALostJournalOfARawBlockVolumeLeavesNoDeviceBehind) {
  capability.mode = VolumeMode::kBlock;
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  StageRequest other = staging_request();
  other.handle = "fast/v2";
  other.staging_path = "/stage2";
  ASSERT_TRUE(stage(other).ok());
  std::ofstream(Journal(directory / "volumes").path_of(kVolume)) << "\0\0\0";
  start();
  ASSERT_TRUE(agent->recover({}).ok());
  const absl::Status published = unstage();
  EXPECT_EQ(published.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text(published), HasSubstr(kPod1));
  ASSERT_TRUE(unpublish(kPod1).ok());
  kernel.on_step([](const std::string& step) {
    return step == "detach" ? absl::UnavailableError("busy") : absl::OkStatus();
  });
  EXPECT_EQ(unstage().code(), absl::StatusCode::kUnavailable) << "OK only when nothing is left";
  kernel.on_step({});
  ASSERT_TRUE(unstage().ok());
  EXPECT_THAT(kernel.attached(), ElementsAre("/images/v2/image.0")) << "another volume's is not touched";
  EXPECT_TRUE(unstage().ok());
}

TEST_F(AgentTest, ALostJournalOfARawBlockVolumeIsRebuiltByTheNextPublish) {
  capability.mode = VolumeMode::kBlock;
  ASSERT_TRUE(stage().ok());
  std::ofstream(Journal(directory / "volumes").path_of(kVolume)) << "{";
  restart();
  ASSERT_TRUE(publish(kPod1).ok());
  EXPECT_EQ(journal_of(kVolume)["state"], "staged");
  EXPECT_EQ(kernel.attached().size(), 1u);
}

TEST_F(AgentTest, TwoDevicesThatMayBeALostVolumesOwnAreLeftToAPerson) {
  kernel.attach_foreign("/a/v1/image.0", 7);
  kernel.attach_foreign("/b/v1/image.0", 8);
  const absl::Status refused = unstage();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text(refused), AllOf(HasSubstr("/dev/loop7, /dev/loop8"), HasSubstr("losetup -d")));
  EXPECT_EQ(kernel.attached().size(), 2u);
}

TEST_F(AgentTest, ALoopDeviceThatWentAwayIsNeverTakenForTheVolumes) {
  capability.mode = VolumeMode::kBlock;
  ASSERT_TRUE(stage().ok());
  // The kernel gives its number to the next image.
  kernel.detach_behind_the_back(kImage);
  kernel.attach_foreign("/images/other/image.0", 0);
  ASSERT_TRUE(publish(kPod1).ok());
  EXPECT_EQ(kernel.table().at(kPod1)->root, "/loop1");
  EXPECT_EQ(agent->status().mounts_healed, 1);
}

TEST_F(AgentTest, AFullDiskRefusesTheWayForwardAndNotTheWayBack) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  journal_hook = [](const std::string&) { return absl::ResourceExhaustedError("no space left on device"); };
  const absl::Status refused = publish(kPod2);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(text(refused), HasSubstr("no space left"));
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging, kPod1));
  StageRequest other = staging_request();
  other.handle = "fast/v2";
  other.staging_path = "/stage2";
  EXPECT_EQ(stage(other).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(kernel.calls("attach"), 1);
  ASSERT_TRUE(unpublish(kPod1).ok());
  ASSERT_TRUE(unstage().ok());
  EXPECT_THAT(kernel.mounted(), IsEmpty());
  EXPECT_THAT(kernel.attached(), IsEmpty());
  // What stayed on the disk is out of date; the next start finds out.
  journal_hook = {};
  restart();
  EXPECT_EQ(agent->status().mounts_held, 0);
  ASSERT_TRUE(unstage().ok());
  EXPECT_THAT(journal_files(), IsEmpty());
}

TEST_F(AgentTest, OneVolumeThatCannotBeRecoveredDoesNotStopTheOthers) {
  ASSERT_TRUE(stage().ok());
  kernel.on_step([](const std::string& step) {
    return step == "unmount" ? absl::UnavailableError("dead share") : absl::OkStatus();
  });
  EXPECT_FALSE(unstage().ok());
  EXPECT_EQ(journal_of(kVolume)["state"], "unstaging");
  start();
  ASSERT_TRUE(agent->recover({}).ok());
  set_backends();
  ASSERT_TRUE(wait_ready(true));
  StageRequest other = staging_request();
  other.handle = "fast/v2";
  other.staging_path = "/stage2";
  EXPECT_TRUE(stage(other).ok());
  kernel.on_step({});
  EXPECT_TRUE(unstage().ok());
}

TEST_F(AgentTest, NothingHappensBeforeRecovery) {
  start();
  EXPECT_EQ(stage().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(unpublish(kPod1).code(), absl::StatusCode::kUnavailable);
}

// ---- one step at a time on a volume

TEST_F(AgentTest, StepsOnOneVolumeWaitForEachOther) {
  std::mutex mutex;
  std::condition_variable changed;
  bool inside = false, go_on = false;
  kernel.on_step([&](const std::string& step) {
    if (step != "attach") return absl::OkStatus();
    std::unique_lock lock(mutex);
    inside = true;
    changed.notify_all();
    changed.wait(lock, [&] { return go_on; });
    return absl::OkStatus();
  });
  std::thread first([&] { EXPECT_TRUE(stage().ok()); });
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return inside; });
  }
  const absl::Status second =
      agent->unstage(Context().with_timeout(std::chrono::milliseconds(50)), kVolume, staging);
  EXPECT_EQ(second.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(text(second), HasSubstr(kVolume));
  // Another volume does not wait.
  EXPECT_TRUE(agent->unstage(Context().with_timeout(std::chrono::seconds(5)), "fast/v2", "/stage2").ok());
  {
    std::lock_guard lock(mutex);
    go_on = true;
  }
  changed.notify_all();
  first.join();
  EXPECT_TRUE(unstage().ok());
}

// ---- backends

TEST_F(AgentTest, AStageOnABackendThatIsNotReadySaysWhy) {
  StubProbe::instance().answer(absl::FailedPreconditionError("directory /srv/share is missing on node-a"));
  ASSERT_TRUE(wait_ready(false));
  const absl::Status refused = stage();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text(refused),
              HasSubstr("backend fast is not ready on node node-a: directory /srv/share is missing"));
  EXPECT_THAT(backend_state().message, HasSubstr("/srv/share"));
  StubProbe::instance().answer(absl::OkStatus());
  ASSERT_TRUE(wait_ready(true));
  EXPECT_TRUE(stage().ok());
}

TEST_F(AgentTest, ADeadShareMakesItsBackendNotReadyAndBlocksNobody) {
  StubProbe::instance().hang();
  ASSERT_TRUE(wait_ready(false));
  EXPECT_THAT(backend_state().message, HasSubstr("does not answer"));
  EXPECT_EQ(stage().code(), absl::StatusCode::kFailedPrecondition);
  const auto operation = agent->carry_out({}, "fast", drivers::Verb::kInspect, base::Json{{"id", "v1"}});
  EXPECT_EQ(operation.status().code(), absl::StatusCode::kUnavailable);
  StubProbe::instance().answer(absl::OkStatus());
  ASSERT_TRUE(wait_ready(true));
}

TEST_F(AgentTest, AnAgentStopsThoughAProbeHangs) {
  StubProbe::instance().hang();
  ASSERT_TRUE(wait_ready(false));
  agent.reset();
  StubProbe::instance().answer(absl::OkStatus());
}

TEST_F(AgentTest, TheStorageOfTheNodeIsNotedAndAnotherIsNeverTakenForIt) {
  // The operator's word (none here) does not count: each node has storage of its own.
  const auto noted = [](const NodeStatus&) {
    const auto last = StubProbe::instance().last();
    return last.expected_system_id == "stub-system" && !last.initialize;
  };
  ASSERT_TRUE(wait_status(noted));
  restart();
  EXPECT_TRUE(noted({})) << "noted on the disk";
  const auto probed = agent->carry_out({}, "fast", drivers::Verb::kProbe, {{"initialize", true}});
  ASSERT_TRUE(probed.ok()) << probed.status();
  EXPECT_EQ(*probed, base::Json::object()) << "the id of one node is not the backend's";
  EXPECT_FALSE(StubProbe::instance().last().initialize);

  StubProbe::instance().answer(absl::FailedPreconditionError("/images is not the storage of backend fast"));
  ASSERT_TRUE(wait_ready(false));
  for (const auto verb : {drivers::Verb::kRemove, drivers::Verb::kFind, drivers::Verb::kCreate}) {
    const auto refused = agent->carry_out({}, "fast", verb, {{"id", "v1"}, {"name", "v1"}});
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(text(refused.status()), AllOf(HasSubstr("backend fast is not ready on node node-a"),
                                              HasSubstr("/images is not the storage")));
  }
  // Nor when the spec cannot be read for a while, by an agent older than it.
  agent->set_backends({{.name = "fast", .unreadable = "agent 0.1.0 cannot read it"}});
  EXPECT_EQ(backend_state().message, "agent 0.1.0 cannot read it");
  set_backends();
  ASSERT_TRUE(wait_status(noted));

  // The backend is deleted: its note goes, and one of the same name starts anew.
  set_backends(false);
  EXPECT_THAT(*base::list_directory(directory / "backends"), IsEmpty());
}

TEST_F(AgentTest, StorageWhoseIdCannotBeNotedIsNotUsed) {
  std::filesystem::remove_all(directory / "backends");
  std::ofstream(directory / "backends") << "in the way";
  start();
  ASSERT_TRUE(agent->recover({}).ok());
  set_backends();
  ASSERT_TRUE(wait_ready(false));
  EXPECT_THAT(backend_state().message, HasSubstr(directory / "backends"));
  std::filesystem::remove(directory / "backends");
  ASSERT_TRUE(wait_ready(true));
}

TEST_F(AgentTest, OperationsAreCarriedOutByTheDriver) {
  const auto found = agent->carry_out({}, "fast", drivers::Verb::kInspect, base::Json{{"id", "v1"}});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ((*found)["id"], "v1");
  EXPECT_EQ(agent->carry_out({}, "fast", drivers::Verb::kInspect, base::Json{{"id", "x"}}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(AgentTest, ABackendThatThisNodeDoesNotKnowSaysNothingOfItsVolumes) {
  for (const auto verb : {drivers::Verb::kProbe, drivers::Verb::kInspect, drivers::Verb::kRemove}) {
    const auto answer = agent->carry_out({}, "gone", verb, {{"id", "v1"}});
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(text(answer.status()), HasSubstr("node node-a knows no backend gone"));
  }
}

TEST_F(AgentTest, ABackendThatCannotBeMadeOrIsUnknownIsToldAndServesNothing) {
  const auto broken = std::make_shared<const base::Json>(base::Json{{"broken", true}});
  const auto fine = std::make_shared<const base::Json>(base::Json::object());
  agent->set_backends({{"bad", "stub", broken, ""}, {"odd", "no-such-kind", fine, ""}});
  const NodeStatus status = agent->status();
  ASSERT_EQ(status.backends.size(), 2u);
  EXPECT_THAT(status.backends[0].message, HasSubstr("spec.stub.broken"));
  EXPECT_THAT(status.backends[1].message, HasSubstr("no-such-kind"));
  for (const auto verb : {drivers::Verb::kProbe, drivers::Verb::kInspect}) {
    const auto answer = agent->carry_out({}, "bad", verb, {{"id", "v1"}});
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(text(answer.status()), HasSubstr("spec.stub.broken"));
  }
  EXPECT_THAT(agent->kinds_wanted(), ElementsAre("stub"));
}

TEST_F(AgentTest, KindsAreToldAsTheRegistrationSaysThem) {
  EXPECT_EQ(agent->status().kinds, (std::vector<NodeStatus::KindState>{{"stub", false, "not served yet"}}));
  agent->set_kind_state({"stub", true, ""});
  EXPECT_EQ(agent->status().kinds, (std::vector<NodeStatus::KindState>{{"stub", true, ""}}));
}

TEST_F(AgentTest, ChangesAreToldUntilNobodyListens) {
  std::atomic<int> changes = 0, kinds = 0;
  agent->on_change([&] { ++changes; });
  agent->on_kinds_change([&] { ++kinds; });
  ASSERT_TRUE(stage().ok());
  EXPECT_GT(changes, 0);
  EXPECT_GT(kinds, 0);
  agent->on_change(nullptr);
  agent->on_kinds_change(nullptr);
  const int before = changes;
  ASSERT_TRUE(unstage().ok());
  EXPECT_EQ(changes, before);
}

// ---- stats

TEST_F(AgentTest, StatsOfAFileSystemAndOfADevice) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  const auto stats = agent->stats({}, kVolume, kPod1);
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->total_bytes, 1000);
  EXPECT_EQ(stats->used_bytes, 400);
  EXPECT_EQ(stats->total_inodes, 50);
  EXPECT_FALSE(stats->abnormal);
  EXPECT_EQ(agent->stats({}, kVolume, "/not/there").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(agent->stats({}, "fast/none", kPod2).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(agent->stats({}, "no-handle-of-ours", kPod2).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(agent->stats({}, kVolume, "some/path").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(agent->stats({}, kVolume, "").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(AgentTest, StatsSayWhatIsWrong) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  kernel.make_super_read_only(kPod1);
  EXPECT_THAT(agent->stats({}, kVolume, kPod1)->message, HasSubstr("read-only after an error"));
  kernel.on_step([](const std::string&) { return absl::UnavailableError("statfs: Input/output error"); });
  const auto broken = agent->stats({}, kVolume, kPod1);
  ASSERT_TRUE(broken.ok());
  EXPECT_TRUE(broken->abnormal);
  EXPECT_THAT(broken->message, HasSubstr("Input/output error"));
  kernel.unmount_behind_the_back(kPod1);
  EXPECT_THAT(agent->stats({}, kVolume, kPod1)->message, HasSubstr("nothing is mounted"));
}

}  // namespace
}  // namespace collage::node
