#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/context.h"
#include "base/json.h"
#include "operator/engine/node_choice.h"
#include "operator/engine/node_operations.h"

namespace collage::engine {

// Calls of one backend's driver on nodes, and which node each goes to. Thread safe.
class NodeCalls {
 public:
  using Nodes = std::vector<std::string>;
  using Answers = std::vector<absl::StatusOr<base::Json>>;

  NodeCalls(std::string backend, NodeOperations& nodes) : backend_(std::move(backend)), nodes_(nodes) {}

  const std::string& backend() const { return backend_; }
  // Nodes that reach the storage, in the order to try them.
  Nodes ready() const;
  bool is_ready(const std::string& node) const;
  // Those, and behind them every other node with an agent.
  Nodes all() const;
  // Where a write of this volume may be running; "" when none is.
  std::string busy_at(const std::string& volume) const { return choice_.busy_at(volume); }

  // UNAVAILABLE, with what to do about it.
  absl::Status no_node() const;
  absl::Status not_ready(const std::string& node) const;

  // One call on one node; its end is remembered. volume "": a read.
  absl::StatusOr<base::Json> run(const base::Context& context, const std::string& node,
                                 const std::string& volume, drivers::Verb verb, const base::Json& arguments,
                                 std::chrono::nanoseconds silence = NodeOperations::kAnySilence);
  // On any ready node; when one does not answer, on the next.
  absl::StatusOr<base::Json> read_anywhere(const base::Context& context, drivers::Verb verb,
                                           const base::Json& arguments);
  // On any ready node; when one does not answer, on the next. While another write of the volume may be under
  // way on a ready node, on that one.
  absl::StatusOr<base::Json> write_anywhere(const base::Context& context, const std::string& volume,
                                            drivers::Verb verb, const base::Json& arguments);
  // A read on all of `nodes`, several at a time; one answer a node, in their order. Once `enough` says so no
  // more are asked; the answer of a node that was not asked is is_not_asked().
  Answers ask(const base::Context& context, const Nodes& nodes, drivers::Verb verb,
              const base::Json& arguments,
              const std::function<bool(const absl::StatusOr<base::Json>&)>& enough);
  static bool is_not_asked(const absl::Status& status);

 private:
  bool is_alive(const base::Context& context, const std::string& node);

  const std::string backend_;
  NodeOperations& nodes_;
  NodeChoice choice_;
};

}  // namespace collage::engine
