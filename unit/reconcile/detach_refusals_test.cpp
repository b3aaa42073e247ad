// Detaches that are refused since something is missing: who waits is told which object, and what to do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "unit/reconcile/attach_fixture.h"

namespace collage::reconcile {
namespace {

using base::Json;
using drivers::Verb;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::kFake;

constexpr char kDetachError[] = "/status/detachError/message";
constexpr char kNodeId[] = "csi.alpha.kubernetes.io/node-id";

struct DetachRefusals : testing::AttachTest {
  // Its PersistentVolume vanishes while it is attached.
  void lose_volume(const std::string& volume) {
    cluster.start();
    cluster.api.put(attachment("node-a", volume));
    ASSERT_TRUE(cluster.wait([&] { return attached("node-a", volume); }));
    cluster.api.erase(kube::kPersistentVolumes, volume);
    ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.volumes.get(volume) == nullptr; }));
  }
  std::string detach_error_of(const std::string& volume) {
    const auto object = cluster.attachment(volume);
    return object.has_value() ? base::get_string(*object, kDetachError) : "";
  }
};

TEST_F(DetachRefusals, AVolumeWithoutItsObjectThatWasNotMadeByUsIsLeftToThePerson) {
  lose_volume("pv-1");
  delete_attachment();
  ASSERT_TRUE(wait_error("node-a", kDetachError, "is gone, so its volume is not known"));
  EXPECT_THAT(detach_error(), AllOf(HasSubstr("PersistentVolume pv-1 is gone"),
                                    HasSubstr("detach it at the storage from node node-a"),
                                    HasSubstr("then remove the finalizer of this VolumeAttachment")));
  EXPECT_EQ(cluster.driver->calls(Verb::kFind) + cluster.driver->calls(Verb::kDetach), 0);
  EXPECT_EQ(holder(), "id-node-a");
}

TEST_F(DetachRefusals, ABackendThatMayHoldTheVolumeIsNamed) {
  const std::string volume = "pvc-uid-data";
  cluster.api.put(testing::a_backend("slow").kind("fake", Json::object()));
  cluster.api.put(cluster.volume(volume).bound());
  lose_volume(volume);
  cluster.api.remove(kube::kVolumeAttachments, "csi-pvc-uid-data-node-a");
  ASSERT_TRUE(cluster.wait([&] { return !detach_error_of(volume).empty(); }));
  EXPECT_THAT(detach_error_of(volume),
              AllOf(HasSubstr("PersistentVolume pvc-uid-data is gone"),
                    HasSubstr("StorageBackend \"slow\", which may hold its volume, is not in use"),
                    HasSubstr("see its conditions")));
  EXPECT_EQ(cluster.driver->calls(Verb::kFind) + cluster.driver->calls(Verb::kDetach), 0);
  EXPECT_EQ(cluster.driver->volumes().at("vol-" + volume).attached_to, "id-node-a");
  cluster.use_backend([](engine::Backend& backend) { backend.spec.name = "slow"; });
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment(volume).has_value(); }));
  EXPECT_EQ(cluster.driver->volumes().at("vol-" + volume).attached_to, "");
}

TEST_F(DetachRefusals, ANodeWithoutAnIdIsNamed) {
  const std::string name = "csi-pv-1-node-a";
  cluster.start();
  attach_to("node-a");
  cluster.api.erase(kube::kCsiNodes, "node-a");
  cluster.api.update(kube::kVolumeAttachments, name,
                     [](Json& json) { json["metadata"]["annotations"].erase(kNodeId); });
  ASSERT_TRUE(cluster.wait([&] {
    return cluster.op->world.csi_nodes.get("node-a") == nullptr &&
           cluster.op->world.attachments.get(name)->node_id.empty();
  }));
  delete_attachment();
  ASSERT_TRUE(wait_error("node-a", kDetachError, "has no id of"));
  EXPECT_THAT(
      detach_error(),
      AllOf(HasSubstr("node node-a has no id of fake.collage.storage"), HasSubstr("it must register again"),
            HasSubstr("the annotation csi.alpha.kubernetes.io/node-id must be put back")));
  EXPECT_EQ(cluster.driver->calls(Verb::kDetach), 0) << "without an id it would be all nodes";
  EXPECT_EQ(holder(), "id-node-a");
  cluster.api.put(testing::a_csi_node("node-a").driver(kFake, "id-node-a"));
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pv-1").has_value(); }));
  EXPECT_EQ(holder(), "");
}

}  // namespace
}  // namespace collage::reconcile
