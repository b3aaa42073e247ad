#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "operator/node/agent.h"

namespace collage::testing {

// Says what the test says, and remembers what it was asked.
class FakeAgent : public node::Agent {
 public:
  explicit FakeAgent(std::vector<std::string> kinds = {"stub"}) : wanted_(std::move(kinds)) {
    for (const char* name : {"stub", "owned"}) {
      drivers::Kind kind;
      kind.info.kind = name;
      if (kind.info.kind == "owned") kind.info.control = drivers::ControlPlace::kOwnerNode;
      kinds_.push_back(kind);
    }
  }

  // Called with each step's context; its status is the answer. Set before calls are under way.
  std::function<absl::Status(const base::Context& context)> answer;
  absl::StatusOr<node::VolumeStats> stats_answer = node::VolumeStats{};

  void want(std::vector<std::string> kinds) {
    std::function<void()> changed;
    {
      std::lock_guard lock(mutex_);
      wanted_ = std::move(kinds);
      changed = kinds_changed_;
    }
    if (changed) changed();
  }
  // Until the kind's state is as `is` has it; false after 10 s.
  bool wait_kind(const std::string& kind, const std::function<bool(const node::NodeStatus::KindState&)>& is) {
    std::unique_lock lock(mutex_);
    return told_.wait_for(lock, std::chrono::seconds(10), [&] { return is(states_[kind]); });
  }
  std::vector<node::StageRequest> staged() const { return locked(staged_); }
  std::vector<node::PublishRequest> published() const { return locked(published_); }
  std::vector<std::string> calls() const { return locked(calls_); }

  void set_backends(std::vector<node::BackendConfig>) override {}
  absl::StatusOr<base::Json> carry_out(const base::Context&, const std::string&, drivers::Verb,
                                       const base::Json&) override {
    return base::Json::object();
  }
  absl::Status stage(const base::Context& context, const node::StageRequest& request) override {
    note("stage", [&] { staged_.push_back(request); });
    return answer ? answer(context) : absl::OkStatus();
  }
  absl::Status unstage(const base::Context& context, const std::string& handle,
                       const std::string& path) override {
    note("unstage " + handle + " " + path, [] {});
    return answer ? answer(context) : absl::OkStatus();
  }
  absl::Status publish(const base::Context& context, const node::PublishRequest& request) override {
    note("publish", [&] { published_.push_back(request); });
    return answer ? answer(context) : absl::OkStatus();
  }
  absl::Status unpublish(const base::Context& context, const std::string& handle,
                         const std::string& path) override {
    note("unpublish " + handle + " " + path, [] {});
    return answer ? answer(context) : absl::OkStatus();
  }
  absl::StatusOr<node::VolumeStats> stats(const base::Context&, const std::string& handle,
                                          const std::string& path) override {
    note("stats " + handle + " " + path, [] {});
    return stats_answer;
  }
  absl::Status recover(const base::Context&) override { return absl::OkStatus(); }
  std::vector<std::string> kinds_wanted() const override { return locked(wanted_); }
  const drivers::Kind* find_kind(const std::string& name) const override {
    for (const drivers::Kind& kind : kinds_) {
      if (kind.info.kind == name) return &kind;
    }
    return nullptr;
  }
  void set_kind_state(const node::NodeStatus::KindState& state) override {
    std::lock_guard lock(mutex_);
    states_[state.name] = state;
    told_.notify_all();
  }
  node::NodeStatus status() const override { return {}; }
  void on_change(std::function<void()>) override {}
  void on_kinds_change(std::function<void()> changed) override {
    std::lock_guard lock(mutex_);
    kinds_changed_ = std::move(changed);
  }

 private:
  template <typename T>
  T locked(const T& value) const {
    std::lock_guard lock(mutex_);
    return value;
  }
  template <typename F>
  void note(std::string call, F keep) {
    std::lock_guard lock(mutex_);
    calls_.push_back(std::move(call));
    keep();
  }

  mutable std::mutex mutex_;
  std::condition_variable told_;
  std::vector<drivers::Kind> kinds_;
  std::vector<std::string> wanted_, calls_;
  std::vector<node::StageRequest> staged_;
  std::vector<node::PublishRequest> published_;
  std::map<std::string, node::NodeStatus::KindState> states_;
  std::function<void()> kinds_changed_;
};

}  // namespace collage::testing
