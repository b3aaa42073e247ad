#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "drivers/kind.h"
#include "operator/node/agent_impl.h"
#include "unit/node/fake_kernel.h"
#include "unit/testing/temp_dir.h"

namespace collage::testing {

// A kind "stub" of image files below /images, whose probe does what the test says. One set of answers for all
// its drivers.
struct StubProbe {
  static StubProbe& instance();
  void answer(absl::Status status);  // of the probes from now on
  void hang();                       // probes do not come back until answer() is called
  absl::Status probe(const base::Context& context, const drivers::Driver::ProbeOptions& options);
  drivers::Driver::ProbeOptions last();  // what was asked last
  // What inspect() says: v1 is there, attached to node-a, until a test says otherwise.
  void hold(const std::string& id, const std::string& node);
  void forget();
  absl::StatusOr<drivers::Volume> inspect(const std::string& id);

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool hanging_ = false;
  absl::Status status_;
  std::map<std::string, std::string> holders_;
  drivers::Driver::ProbeOptions last_;
};
const std::vector<drivers::Kind>& stub_kinds();

// An agent over a fake kernel, a real journal and the kind "stub" with one backend, "fast".
class NodeFixture : public ::testing::Test {
 public:
  static constexpr char kVolume[] = "fast/v1";
  static constexpr char kImage[] = "/images/v1/image.0";

  NodeFixture();
  ~NodeFixture() override;

  // A new agent on the same state directory and kernel. The former one is gone, as after a kill.
  void start();
  void set_backends(bool present = true, const std::string& system_id = "");
  // Until the backend has this readiness; false after 10 s.
  bool wait_ready(bool ready);
  // Until the agent's status is as the test wants it; false after 10 s.
  bool wait_status(const std::function<bool(const node::NodeStatus&)>& wanted);
  node::BackendState backend_state();

  node::PublishRequest publish_request(const std::string& target, bool read_only = false) const;
  absl::Status stage(const node::StageRequest& request) { return agent->stage({}, request); }
  absl::Status stage() { return agent->stage({}, staging_request()); }
  absl::Status publish(const std::string& target, bool read_only = false) {
    return agent->publish({}, publish_request(target, read_only));
  }
  absl::Status unpublish(const std::string& target) { return agent->unpublish({}, kVolume, target); }
  absl::Status unstage() { return agent->unstage({}, kVolume, staging); }
  node::StageRequest staging_request() const;

  std::vector<std::string> journal_files() const;  // names
  base::Json journal_of(const std::string& handle) const;

  TempDir directory;
  FakeKernel kernel;
  node::Journal::Hook journal_hook;
  std::string boot_id = "boot-1";
  std::string staging = "/kubelet/plugins/kubernetes.io/csi/stub.collage.storage/hash/globalmount";
  drivers::VolumeCapability capability;
  std::unique_ptr<node::AgentImpl> agent;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace collage::testing
