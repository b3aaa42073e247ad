#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "drivers/operation.h"
#include "operator/node/agent.h"
#include "unit/testing/fake_driver.h"

namespace collage::testing {

// The node's side without a kernel: backends are ready as told, calls go to a driver in memory.
class StandInAgent final : public node::Agent {
 public:
  explicit StandInAgent(FakeDriver& driver) : driver_(driver) {}

  void set_backends(std::vector<node::BackendConfig> backends) override {
    std::lock_guard lock(mutex_);
    backends_ = std::move(backends);
    ++told_;
    if (changed_) changed_();
  }
  absl::StatusOr<base::Json> carry_out(const base::Context& context, const std::string&, drivers::Verb verb,
                                       const base::Json& arguments) override {
    const int running = ++running_;
    int most = most_.load();
    while (running > most && !most_.compare_exchange_weak(most, running)) {
    }
    auto answer = drivers::carry_out(context, driver_, verb, arguments);
    --running_;
    return answer;
  }
  absl::Status stage(const base::Context&, const node::StageRequest&) override {
    return absl::UnimplementedError("");
  }
  absl::Status unstage(const base::Context&, const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::Status publish(const base::Context&, const node::PublishRequest&) override {
    return absl::UnimplementedError("");
  }
  absl::Status unpublish(const base::Context&, const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<node::VolumeStats> stats(const base::Context&, const std::string&,
                                          const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::Status recover(const base::Context&) override { return absl::OkStatus(); }
  std::vector<std::string> kinds_wanted() const override { return {}; }
  const drivers::Kind* find_kind(const std::string&) const override { return nullptr; }
  void set_kind_state(const node::NodeStatus::KindState&) override {}
  node::NodeStatus status() const override {
    std::lock_guard lock(mutex_);
    node::NodeStatus status;
    for (const auto& backend : backends_)
      status.backends.push_back({backend.name, backend.unreadable.empty(), backend.unreadable});
    if (registered_) status.kinds.push_back({"fake", true, ""});
    status.mounts_held = mounts_;
    return status;
  }
  void on_kinds_change(std::function<void()>) override {}
  void on_change(std::function<void()> changed) override {
    std::lock_guard lock(mutex_);
    changed_ = std::move(changed);
  }
  void set_registered() { registered_ = true; }  // before it starts
  void set_mounts(int mounts) {
    std::function<void()> changed;
    {
      std::lock_guard lock(mutex_);
      mounts_ = mounts;
      changed = changed_;
    }
    changed();
  }
  std::vector<node::BackendConfig> backends() const {
    std::lock_guard lock(mutex_);
    return backends_;
  }
  int told() const {
    std::lock_guard lock(mutex_);
    return told_;
  }
  int most_at_once() const { return most_; }

 private:
  FakeDriver& driver_;
  mutable std::mutex mutex_;
  std::vector<node::BackendConfig> backends_;
  std::function<void()> changed_;
  int mounts_ = 0;
  int told_ = 0;
  bool registered_ = false;
  std::atomic<int> running_ = 0;
  std::atomic<int> most_ = 0;
};

}  // namespace collage::testing
