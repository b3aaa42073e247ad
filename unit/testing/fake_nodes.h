#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "operator/engine/node_operations.h"

namespace collage::testing {

// Nodes that carry out calls on drivers of this process. Thread safe; set it up before calls are made.
class FakeNodes final : public engine::NodeOperations {
 public:
  struct Call {
    std::string node;
    drivers::Verb verb;
  };
  // Anything but OK is answered in place of the result; lost: after the call was carried out.
  using Fault = std::function<absl::Status(const std::string& node, drivers::Verb verb)>;

  void add(const std::string& node, std::shared_ptr<drivers::Driver> driver, bool ready = true) {
    nodes_[node] = {std::move(driver), ready};
  }
  void set_ready(const std::string& node, bool ready) {
    std::lock_guard lock(mutex_);
    nodes_[node].ready = ready;
  }
  void remove(const std::string& node) {
    std::lock_guard lock(mutex_);
    nodes_.erase(node);
  }
  // What the node answers when it is asked whether it holds a volume; nothing said: it does not answer.
  void say_holds(const std::string& node, bool held) {
    std::lock_guard lock(mutex_);
    holds_[node] = held;
  }
  void on_holds(std::function<void()> before) {
    before_holds_ = std::move(before);
  }  // set before it is asked
  void silence(Fault fault) { before_ = std::move(fault); }
  void lose(Fault fault) { after_ = std::move(fault); }

  std::vector<std::string> ready_nodes(const std::string&) const override {
    std::lock_guard lock(mutex_);
    std::vector<std::string> names;
    for (const auto& [name, node] : nodes_) {
      if (node.ready) names.push_back(name);
    }
    return names;
  }
  std::vector<std::string> agent_nodes() const override {
    std::lock_guard lock(mutex_);
    std::vector<std::string> names;
    for (const auto& [name, node] : nodes_) names.push_back(name);
    return names;
  }
  absl::StatusOr<base::Json> run(const base::Context& context, const std::string& node,
                                 const std::string& backend, drivers::Verb verb, const base::Json& arguments,
                                 std::chrono::nanoseconds silence) override;

  // The nodes asked, in order.
  std::vector<std::string> asked(drivers::Verb verb) const {
    std::lock_guard lock(mutex_);
    std::vector<std::string> names;
    for (const Call& call : calls_) {
      if (call.verb == verb) names.push_back(call.node);
    }
    return names;
  }

 private:
  struct Node {
    std::shared_ptr<drivers::Driver> driver;
    bool ready = true;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Node> nodes_;
  std::map<std::string, bool> holds_;
  std::function<void()> before_holds_;
  std::vector<Call> calls_;
  Fault before_, after_;
};

}  // namespace collage::testing
