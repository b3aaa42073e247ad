#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "unit/reconcile/cluster.h"

namespace collage::testing {

// Two nodes with the driver, and volume "pv-1".
struct AttachTest : ::testing::Test {
  AttachTest() { fill(); }
  void fill() {
    for (const std::string name : {"node-a", "node-b"}) {
      cluster.api.put(a_node(name));
      cluster.api.put(a_csi_node(name).driver(kFake, "id-" + name));
    }
    cluster.api.put(cluster.volume("pv-1").bound());
  }
  static AttachmentBuilder attachment(const std::string& node = "node-a",
                                      const std::string& volume = "pv-1") {
    return an_attachment(volume, node).of_driver(kFake);
  }
  bool attached(const std::string& node = "node-a", const std::string& volume = "pv-1") {
    const auto object = cluster.attachment(volume, node);
    return object.has_value() && base::get_bool(*object, "/status/attached");
  }
  std::string attach_error(const std::string& node = "node-a") {
    return error(node, "/status/attachError/message");
  }
  std::string detach_error(const std::string& node = "node-a") {
    return error(node, "/status/detachError/message");
  }
  std::string error(const std::string& node, const std::string& pointer) {
    const auto object = cluster.attachment("pv-1", node);
    return object.has_value() ? base::get_string(*object, pointer) : "";
  }
  bool wait_error(const std::string& node, const std::string& pointer, const std::string& part) {
    const bool came = cluster.wait([&] { return error(node, pointer).find(part) != std::string::npos; });
    EXPECT_TRUE(came) << error(node, pointer);
    return came;
  }
  std::string holder() { return cluster.driver->volumes().at("vol-pv-1").attached_to; }
  void set_in_use(const std::string& node, bool in_use) {
    cluster.api.update(kube::kNodes, node, [&](base::Json& json) {
      json["status"]["volumesInUse"] =
          in_use ? base::Json({"kubernetes.io/csi/fake.collage.storage^fast/vol-pv-1"}) : base::Json::array();
    });
  }
  void set_ready(const std::string& node, bool ready) {
    cluster.api.update(kube::kNodes, node, [&](base::Json& json) {
      json["status"]["conditions"] = {{{"type", "Ready"}, {"status", ready ? "True" : "Unknown"}}};
    });
  }
  void delete_attachment(const std::string& node = "node-a") {
    cluster.api.remove(kube::kVolumeAttachments, "csi-pv-1-" + node);
  }
  void attach_to(const std::string& node) {
    cluster.api.put(attachment(node));
    ASSERT_TRUE(cluster.wait([&] { return attached(node); }));
  }

  Cluster cluster;
};

}  // namespace collage::testing
