#include "drivers/metered_driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/metrics.h"
#include "unit/testing/fake_driver.h"

namespace collage::drivers {
namespace {

using ::testing::HasSubstr;

std::string line(const std::string& method, const std::string& code, int count) {
  return "csi_plugin_operations_seconds_count{driver_name=\"metered.collage.storage\",grpc_status_code=\"" +
         code + "\",method_name=\"" + method + "\",migrated=\"false\"} " + std::to_string(count);
}

TEST(MeteredDriver, CountsEveryCallByMethodAndCodeAndHidesNothing) {
  testing::FakeDriverOptions options;
  options.info.kind = "metered";
  auto fake = std::make_shared<testing::FakeDriver>(options);
  testing::set_fake_driver(fake);
  const Kind kind = testing::fake_kind(options);
  const auto made = make_driver(kind, {});
  ASSERT_TRUE(made.ok()) << made.status();
  Driver& driver = **made;
  const base::Context context;
  const CreateRequest request{
      .name = "pvc-1", .required_bytes = 1 << 20, .capabilities = {VolumeCapability{}}};
  fake->fail_before(Verb::kCreate, absl::UnavailableError("not now"));
  EXPECT_EQ(driver.create(context, request).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(driver.create(context, request)->id, "vol-pvc-1");
  EXPECT_EQ(driver.inspect(context, "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(driver.find(context, "pvc-1")->has_value());
  EXPECT_EQ(driver.list(context, "", 0)->volumes.size(), 1u);
  ASSERT_NE(driver.attacher(), nullptr);
  EXPECT_TRUE(driver.attacher()->attach(context, "vol-pvc-1", "node-a", {}, false).ok());
  EXPECT_TRUE(driver.attacher()->detach(context, "vol-pvc-1", "node-a").ok());
  ASSERT_NE(driver.capacity_reporter(), nullptr);
  EXPECT_TRUE(driver.capacity_reporter()->capacity(context, {}, {}).ok());
  EXPECT_TRUE(driver.remove(context, "vol-pvc-1").ok());
  EXPECT_TRUE(driver.probe(context, {}).ok());
  const std::string text = base::metrics_text();
  for (const auto& expected :
       {line("/csi.v1.Controller/CreateVolume", "Unavailable", 1),
        line("/csi.v1.Controller/CreateVolume", "OK", 1),
        line("/csi.v1.Controller/ControllerGetVolume", "NotFound", 1), line("/collage.storage/Find", "OK", 1),
        line("/csi.v1.Controller/ListVolumes", "OK", 1),
        line("/csi.v1.Controller/ControllerPublishVolume", "OK", 1),
        line("/csi.v1.Controller/ControllerUnpublishVolume", "OK", 1),
        line("/csi.v1.Controller/GetCapacity", "OK", 1), line("/csi.v1.Controller/DeleteVolume", "OK", 1),
        line("/csi.v1.Identity/Probe", "OK", 1)}) {
    EXPECT_THAT(text, HasSubstr(expected));
  }
}

TEST(MeteredDriver, KeepsTheCredentialsOutOfEveryError) {
  testing::FakeDriverOptions options;
  auto fake = std::make_unique<testing::FakeDriver>(options);
  const absl::Status telling =
      absl::InternalError("login of admin with s3cr3t-word failed, Basic czNjcjN0LXdvcmQ=");
  for (const Verb verb : {Verb::kProbe, Verb::kCreate, Verb::kRemove, Verb::kFind, Verb::kInspect,
                          Verb::kList, Verb::kAttach, Verb::kDetach, Verb::kCapacity})
    fake->fail_before(verb, telling);
  const auto driver = metered(std::move(fake), {{"password", base::Secret("s3cr3t-word")}});
  const base::Context context;
  const CreateRequest request{
      .name = "pvc-1", .required_bytes = 1 << 20, .capabilities = {VolumeCapability{}}};
  const std::vector<absl::Status> errors{driver->probe(context, {}).status(),
                                         driver->create(context, request).status(),
                                         driver->remove(context, "x"),
                                         driver->find(context, "x").status(),
                                         driver->inspect(context, "x").status(),
                                         driver->list(context, "", 0).status(),
                                         driver->attacher()->attach(context, "x", "n", {}, false).status(),
                                         driver->attacher()->detach(context, "x", "n"),
                                         driver->capacity_reporter()->capacity(context, {}, {}).status()};
  for (const absl::Status& error : errors)
    EXPECT_EQ(error, absl::InternalError("login of admin with *** failed, Basic ***"));
}

TEST(MeteredDriver, HasThePartsThatTheDriverHas) {
  testing::FakeDriverOptions options{.attaches = false, .reports_capacity = false};
  const auto driver = metered(std::make_unique<testing::FakeDriver>(options));
  EXPECT_EQ(driver->attacher(), nullptr);
  EXPECT_EQ(driver->capacity_reporter(), nullptr);
  EXPECT_EQ(driver->info().kind, "fake");
}

}  // namespace
}  // namespace collage::drivers
