#include "operator/reconcile/node_agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "unit/reconcile/stand_in_agent.h"
#include "unit/testing/builders.h"
#include "unit/testing/captured_log.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_driver.h"

// The node's side alone; with the operator's: node_link_test.cpp.
namespace collage::reconcile {
namespace {

using base::Json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class NodeAgentTest : public ::testing::Test {
 protected:
  NodeAgentTest() {
    kinds_.front().validate = [](const Json&) { return absl::OkStatus(); };
    server_.put(testing::a_storage_node("node-a"));
    server_.put(testing::a_backend("share").kind("fake", {{"size", 1}}).generation(1));
  }
  void start() {
    link_.start({});
    ASSERT_TRUE(server_.wait_until([this] { return link_.ready().ok(); })) << link_.ready();
  }
  Json state_of(const std::string& backend) const {
    const Json node = server_.get(kube::kStorageNodes, "node-a").value_or(Json());
    if (const Json* backends = base::find(node, "/status/backends"); backends != nullptr) {
      for (const Json& state : *backends) {
        if (base::get_string(state, "/name") == backend) return state;
      }
    }
    return Json();
  }
  bool becomes(const std::string& backend, bool ready) const {
    return server_.wait_until([&] {
      const Json state = state_of(backend);
      return state.is_object() && base::get_bool(state, "/ready") == ready;
    });
  }
  // As by an operator and a CRD that know more than this agent.
  void change(const std::string& field, const Json& value) {
    server_.update(kube::kStorageBackends, "share", [&](Json& object) {
      object["spec"][field] = value;
      object["metadata"]["generation"] = base::get_int(object, "/metadata/generation") + 1;
    });
  }

  testing::CapturedLog log_;
  testing::FakeApiServer server_;
  std::unique_ptr<kube::Client> client_ = server_.client();
  std::vector<drivers::Kind> kinds_{testing::fake_kind()};
  testing::FakeDriver driver_;
  testing::StandInAgent agent_{driver_};
  NodeAgent link_{*client_, agent_, kinds_, "node-a", "0.1.0"};
};

TEST_F(NodeAgentTest, ABackendOfALaterVersionIsToldAndTheOthersAreServed) {
  server_.put(testing::a_backend("later").kind("fake", {{"size", 1}}).set("/spec/notYetKnown", true));
  start();
  ASSERT_TRUE(becomes("share", true));
  ASSERT_TRUE(becomes("later", false));
  EXPECT_THAT(base::get_string(state_of("later"), "/message"),
              AllOf(HasSubstr("agent 0.1.0"), HasSubstr("notYetKnown"), HasSubstr("update the DaemonSet")));
  EXPECT_THAT(agent_.backends(), ElementsAre(Field(&node::BackendConfig::name, "later"),
                                             Field(&node::BackendConfig::name, "share")))
      << "what it knows of the one it cannot read is not forgotten";
  EXPECT_THAT(log_.with({"cannot be read by this version", "backend=later", "notYetKnown", "DaemonSet"}),
              SizeIs(1));
}

TEST_F(NodeAgentTest, ItIsLoggedOnceAChangeAndForgottenWhenItCanBeRead) {
  start();
  ASSERT_TRUE(becomes("share", true));
  change("firstUnknown", 1);
  ASSERT_TRUE(becomes("share", false));
  server_.put(testing::a_backend("other").kind("fake", {{"size", 1}}));
  ASSERT_TRUE(becomes("other", true));
  EXPECT_THAT(log_.with({"cannot be read by this version"}), SizeIs(1)) << "another backend's change";
  change("secondUnknown", 1);
  ASSERT_TRUE(server_.wait_until([this] {
    return base::get_string(state_of("share"), "/message").find("secondUnknown") != std::string::npos;
  }));
  EXPECT_THAT(log_.with({"cannot be read by this version"}), SizeIs(2));
  server_.update(kube::kStorageBackends, "share", [](Json& object) {
    object["spec"].erase("firstUnknown");
    object["spec"].erase("secondUnknown");
    object["metadata"]["generation"] = 9;
  });
  EXPECT_TRUE(becomes("share", true));
  server_.erase(kube::kStorageBackends, "share");
  EXPECT_TRUE(server_.wait_until([this] { return state_of("share").is_null(); }));
}

}  // namespace
}  // namespace collage::reconcile
