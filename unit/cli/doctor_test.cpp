#include "operator/cli/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/temp_dir.h"

namespace collage::cli {
namespace {

using base::Json;
using testing::FakeApiServer;
using testing::Fault;
using ::testing::HasSubstr;
using Grade = Finding::Grade;

constexpr char kSpace[] = "collage-system";

// A cluster in which all is well.
class DoctorTest : public ::testing::Test {
 protected:
  DoctorTest() {
    server_.put({{"apiVersion", "coordination.k8s.io/v1"},
                 {"kind", "Lease"},
                 {"metadata", {{"name", "collage-operator"}, {"namespace", kSpace}}},
                 {"spec", {{"holderIdentity", "operator-1"}}}});
    server_.put(
        {{"apiVersion", "apps/v1"},
         {"kind", "DaemonSet"},
         {"metadata",
          {{"name", "collage-node"},
           {"namespace", kSpace},
           {"labels", {{"app.kubernetes.io/part-of", "collage"}, {"app.kubernetes.io/component", "node"}}}}},
         {"status", {{"desiredNumberScheduled", 2}, {"numberReady", 2}}}});
    server_.put(storage_node("node-a", {{"name", "image"}, {"registered", true}}));
    Json backend = testing::a_backend("fast").ready();
    backend["metadata"]["generation"] = 1;
    backend["status"]["observedGeneration"] = 1;
    server_.put(backend);
    // The leader renews, as often as somebody looks.
    server_.on_request([this](const testing::ApiRequest& request) {
      if (renewing_ && request.verb == "get" && request.resource == "leases") {
        server_.update(kube::kLeases, absl::StrCat(kSpace, "/collage-operator"),
                       [this](Json& lease) { lease["spec"]["renewals"] = ++renewals_; });
      }
      return Fault{};
    });
  }

  static Json storage_node(const std::string& name, const Json& kind) {
    return {{"apiVersion", "collage.storage/v1beta1"},
            {"kind", "StorageNode"},
            {"metadata", {{"name", name}}},
            {"status", {{"agentVersion", "1"}, {"kinds", Json::array({kind})}}}};
  }

  std::vector<Finding> examine(std::string volume = "") {
    return cli::examine({}, *client_,
                        {.name_space = kSpace,
                         .volume = std::move(volume),
                         .lease_patience = std::chrono::milliseconds(500)});
  }

  FakeApiServer server_;
  std::unique_ptr<kube::Client> client_ = server_.client();
  bool renewing_ = true;
  int renewals_ = 0;
};

TEST_F(DoctorTest, AWholeInstallationIsHealthyAndNothingIsWritten) {
  const auto findings = examine();
  EXPECT_TRUE(healthy(findings));
  const std::string text = to_text(findings);
  for (const char* part : {"ok    API server", "operator-1 leads", "all 2 agents are ready",
                           "kinds with a kubelet: image", "StorageBackend fast"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  EXPECT_EQ(server_.writes(), 0);
}

struct Case {
  std::string_view name;
  std::function<void(FakeApiServer&, bool& renewing)> spoil;
  std::string subject, says;
  Grade grade = Grade::kBad;
};

const Case kCases[] = {
    {"TheAPIServerRefusesUs",
     [](auto& server, bool&) { server.fail_next("", "", Fault::answer(401, "Unauthorized"), 100); },
     "API server", "refuses the credentials"},
    {"AResourceIsNotThere",
     [](auto& server, bool&) {
       server.fail_next("list", "storagenodes", Fault::answer(404, "NotFound"), 100);
     },
     "CRD storagenodes.collage.storage", "kubectl apply --server-side -f crds/"},
    {"NoOperatorHasEverRun",
     [](auto& server, bool&) { server.erase(kube::kLeases, "collage-system/collage-operator"); },
     "Lease collage-system/collage-operator", "no operator has ever led"},
    {"TheLeaderWasKilled", [](auto&, bool& renewing) { renewing = false; },
     "Lease collage-system/collage-operator", "operator-1 does not renew it"},
    {"TheLeaderGaveUpAndNobodyTookOver",
     [](auto& server, bool&) {
       server.update(kube::kLeases, "collage-system/collage-operator",
                     [](Json& lease) { lease["spec"]["holderIdentity"] = ""; });
     },
     "Lease collage-system/collage-operator", "no operator leads"},
    {"NoAgentsAreInstalled",
     [](auto& server, bool&) { server.erase(kube::kDaemonSets, "collage-system/collage-node"); }, "agents",
     "no DaemonSet"},
    {"AnAgentIsNotReady",
     [](auto& server, bool&) {
       server.update(kube::kDaemonSets, "collage-system/collage-node",
                     [](Json& set) { set["status"]["numberReady"] = 1; });
     },
     "DaemonSet collage-system/collage-node", "1 of 2 agents are ready"},
    {"NoNodeIsToRunAnAgent",
     [](auto& server, bool&) {
       server.update(kube::kDaemonSets, "collage-system/collage-node", [](Json& set) {
         set["status"] = {{"desiredNumberScheduled", 0}, {"numberReady", 0}};
       });
     },
     "DaemonSet collage-system/collage-node", "node.nodeSelector"},
    {"AKubeletRefusedADriver",
     [](auto& server, bool&) {
       server.update(kube::kStorageNodes, "node-a", [](Json& node) {
         node["status"]["kinds"][0] = {{"name", "image"}, {"registered", false}, {"message", "too old"}};
       });
     },
     "StorageNode node-a", "kind image: too old"},
    {"NoAgentHasWrittenAnything",
     [](auto& server, bool&) {
       server.update(kube::kStorageNodes, "node-a", [](Json& node) { node["status"] = Json::object(); });
     },
     "StorageNodes", "no agent has written any"},
    {"ABackendIsNotReady",
     [](auto& server, bool&) {
       server.update(kube::kStorageBackends, "fast", [](Json& backend) {
         backend["status"]["conditions"] = Json::array({{{"type", "Ready"},
                                                         {"status", "False"},
                                                         {"reason", "ProbeFailed"},
                                                         {"message", "the share is away"}}});
       });
     },
     "StorageBackend fast", "not Ready, ProbeFailed: the share is away"},
    {"ABackendWasChangedAndNobodyLooked",
     [](auto& server, bool&) {
       server.update(kube::kStorageBackends, "fast",
                     [](Json& backend) { backend["status"]["observedGeneration"] = 0; });
     },
     "StorageBackend fast", "as it is now"},
    {"ANodeWithoutAnAgentIsWorthANote",
     [](auto& server, bool&) {
       Json node = {{"apiVersion", "collage.storage/v1beta1"},
                    {"kind", "StorageNode"},
                    {"metadata", {{"name", "node-b"}}}};
       server.put(node);
     },
     "StorageNode node-b", "no agent has run there", Grade::kNote},
    {"APausedBackendIsWorthANote",
     [](auto& server, bool&) {
       server.update(kube::kStorageBackends, "fast", [](Json& backend) {
         backend["spec"]["paused"] = true;
         backend["status"]["observedGeneration"] = backend["metadata"]["generation"];
         backend["status"]["conditions"] =
             Json::array({{{"type", "Ready"}, {"status", "False"}, {"reason", "Paused"}}});
       });
     },
     "StorageBackend fast", "paused", Grade::kNote},
    {"NoBackendIsWorthANote", [](auto& server, bool&) { server.erase(kube::kStorageBackends, "fast"); },
     "StorageBackends", "there is none yet", Grade::kNote},
};

class DoctorFinds : public DoctorTest, public ::testing::WithParamInterface<Case> {};

TEST_P(DoctorFinds, ItAndNothingElse) {
  const Case& c = GetParam();
  c.spoil(server_, renewing_);
  const auto findings = examine();
  EXPECT_EQ(healthy(findings), c.grade != Grade::kBad) << to_text(findings);
  int other = 0;
  for (const Finding& finding : findings) {
    if (finding.grade == Grade::kGood) continue;
    if (finding.subject == c.subject) {
      EXPECT_EQ(finding.grade, c.grade);
      EXPECT_THAT(finding.message, HasSubstr(c.says));
      ++other;
    }
  }
  EXPECT_EQ(other, 1) << to_text(findings);
}

INSTANTIATE_TEST_SUITE_P(Cases, DoctorFinds, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_F(DoctorTest, ADirectoryThatIsNoMountIsNoVolume) {
  testing::TempDir directory;
  const auto findings = examine(directory.path());
  EXPECT_FALSE(healthy(findings));
  EXPECT_THAT(to_text(findings), HasSubstr("nothing is mounted there"));
  EXPECT_FALSE(healthy(examine(directory.path() + "/missing")));
}

TEST_F(DoctorTest, AMountedVolumeIsWrittenToReadAndLeftEmpty) {
  testing::TempDir directory;
  if (mount("tmpfs", directory.path().c_str(), "tmpfs", 0, "size=1m") != 0)
    GTEST_SKIP() << "needs root, to mount a tmpfs";
  const auto findings = examine(directory.path());
  EXPECT_TRUE(healthy(findings)) << to_text(findings);
  EXPECT_THAT(to_text(findings), HasSubstr("read back"));
  EXPECT_TRUE(base::list_directory(directory.path())->empty());
  EXPECT_EQ(mount("", directory.path().c_str(), "", MS_REMOUNT | MS_RDONLY, ""), 0);
  EXPECT_FALSE(healthy(examine(directory.path())));
  EXPECT_EQ(umount(directory.path().c_str()), 0);
}

}  // namespace
}  // namespace collage::cli
