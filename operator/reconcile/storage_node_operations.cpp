#include "operator/reconcile/storage_node_operations.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/status.h"
#include "operator/engine/operation_text.h"

namespace collage::reconcile {
namespace {

using base::Json;

constexpr auto kCallTimeout = std::chrono::seconds(60);
constexpr auto kSpacing = std::chrono::milliseconds(200);
constexpr auto kLookAgain = std::chrono::milliseconds(500);
constexpr auto kIdle = std::chrono::seconds(1);
// Removals come one by one, as fast as Kubernetes releases volumes, and nobody waits for any: they share
// writes.
constexpr auto kRemovalSpacing = std::chrono::milliseconds(300);

const base::Histogram& call_seconds() {
  static const base::Histogram histogram("collage_node_operation_seconds",
                                         "Calls carried out by a node for the operator.", {"verb", "code"});
  return histogram;
}

// An agent that ends takes its sockets with it, and kubelet then takes its drivers out of the CSINode; the
// StorageNode goes on saying that they are registered.
bool is_unregistered(const kube::StorageNodeObject& object, const kube::CsiNode* csi_node) {
  const Json* kinds = base::find(*object.json, "/status/kinds");
  if (kinds == nullptr || !kinds->is_array()) return false;
  bool any = false;
  for (const Json& kind : *kinds) {
    if (!base::get_bool(kind, "/registered")) continue;
    const std::string driver = drivers::csi_driver_name(base::get_string(kind, "/name"));
    if (csi_node != nullptr && csi_node->driver(driver) != nullptr) return false;
    any = true;
  }
  return any;
}

absl::Status answer_status(const Json& answer) {
  const std::string code = base::get_string(answer, "/code");
  if (code == "OK") return absl::OkStatus();
  for (int value = 1; value <= 16; ++value) {
    const auto candidate = static_cast<absl::StatusCode>(value);
    if (absl::StatusCodeToString(candidate) == code)
      return absl::Status(candidate, base::get_string(answer, "/message"));
  }
  return absl::InternalError(absl::StrCat("answered with the unknown code '", code, "'"));
}

}  // namespace

struct StorageNodeOperations::Call {
  std::string id, backend, verb, arguments;  // all but the id make two calls equal
  std::string text;                          // of them all, as in spec.operations
  std::condition_variable_any answered;
  int waiting = 0;
  bool done = false;
  absl::Status status;
  Json result;
};

struct StorageNodeOperations::NodeQueue {
  NodeQueue(std::string name, GroupCommit::Write write)
      : node(std::move(name)), commit(kSpacing, kIdle, std::move(write)) {}
  const std::string node;
  std::vector<std::shared_ptr<Call>> calls;  // oldest first, none done
  size_t written = 0;                        // operations in the last write
  base::Clock::Monotonic heard{};            // when the node answered a call last
  GroupCommit commit;                        // last: its thread ends before the rest goes
};

StorageNodeOperations::StorageNodeOperations(World& world) : world_(world), process_(base::random_hex(4)) {
  world_.storage_nodes.add_handler([this](const auto& before, const auto& after) {
    if (!after) return;
    const auto changed = [&](std::string_view list) {
      return before == nullptr || !engine::same_list(*before->json, *after->json, list);
    };
    if (changed(engine::kOperations)) drop_foreign(*after);
    if (changed(engine::kAnswers)) take_answers(*after);
    if (before == nullptr || before->meta.uid != after->meta.uid) ask_again(after->meta.name);
  });
}

// A StorageNode that was made anew has lost what its node was asked for.
void StorageNodeOperations::ask_again(const std::string& node) {
  std::lock_guard lock(mutex_);
  const auto found = queues_.find(node);
  if (started_ && found != queues_.end() && !found->second->calls.empty()) found->second->commit.touch();
}

StorageNodeOperations::~StorageNodeOperations() {
  stop();
}

void StorageNodeOperations::start(const base::Context& context) {
  std::unique_lock lock(mutex_);
  context_ = context;
  started_ = true;
  for (auto& [node, queue] : queues_) queue->commit.start(context_.with_field("node", node));
  lock.unlock();
  // What an earlier operator asked for and nobody waits for any more goes from every node at once: an agent
  // that starts later would carry it out again.
  for (const auto& object : world_.storage_nodes.list()) drop_foreign(*object);
}

void StorageNodeOperations::drop_foreign(const kube::StorageNodeObject& object) {
  const Json* listed = base::find(*object.json, engine::kOperations);
  if (listed == nullptr || listed->empty()) return;
  const std::vector<Json> operations = engine::operations_in(*object.json, engine::kOperations);
  const bool own = std::all_of(operations.begin(), operations.end(), [&](const Json& operation) {
    return base::get_string(operation, "/id").starts_with(process_ + "-");
  });
  if (own && !operations.empty()) return;
  std::lock_guard lock(mutex_);
  if (!started_) return;  // another replica leads
  NodeQueue& mine = queue(object.meta.name);
  mine.written = std::max<size_t>(mine.written, 1);
  mine.commit.touch();
}

void StorageNodeOperations::stop() {
  std::map<std::string, std::unique_ptr<NodeQueue>> queues;
  {
    std::lock_guard lock(mutex_);
    started_ = false;
    queues.swap(queues_);
    for (auto& [node, queue] : queues) {
      for (auto& call : queue->calls) {
        call->status = absl::CancelledError("the operator is stopping");
        call->done = true;
        call->answered.notify_all();
      }
    }
  }
}

StorageNodeOperations::NodeQueue& StorageNodeOperations::queue(const std::string& node) {
  auto& slot = queues_[node];
  if (!slot) {
    // The queue is owned by the map and outlives its own writer thread.
    auto made = std::make_unique<NodeQueue>(node, [this, node](const base::Context& context) {
      NodeQueue* mine = nullptr;
      {
        std::lock_guard lock(mutex_);
        auto found = queues_.find(node);
        if (found != queues_.end()) mine = found->second.get();
      }
      return mine ? write(context, *mine) : absl::OkStatus();
    });
    if (started_) made->commit.start(context_.with_field("node", node));
    slot = std::move(made);
  }
  return *slot;
}

absl::Status StorageNodeOperations::reachable(const std::string& node) const {
  auto object = world_.storage_nodes.get(node);
  if (!object || base::get_string(*object->json, "/status/agentVersion").empty()) {
    return absl::UnavailableError(
        absl::StrCat("node ", node,
                     " runs no Collage agent; see that the DaemonSet of the chart has a running pod there"));
  }
  if (is_unregistered(*object, world_.csi_nodes.get(node).get())) {
    return absl::UnavailableError(
        absl::StrCat("node ", node,
                     ": kubelet there lists no driver of Collage any more, so its agent has ended; see that "
                     "the DaemonSet of the chart has a running pod there"));
  }
  auto live = world_.nodes.get(node);
  if (!live) return absl::UnavailableError(absl::StrCat("node ", node, " is no longer in the cluster"));
  if (!live->ready) {
    return absl::UnavailableError(
        absl::StrCat("node ", node, " is not Ready, and only it can make this call; waiting for it"));
  }
  if (live->out_of_service) {
    return absl::UnavailableError(
        absl::StrCat("node ", node,
                     " has the taint node.kubernetes.io/out-of-service; it is asked again once that is off"));
  }
  return absl::OkStatus();
}

std::vector<std::string> StorageNodeOperations::agent_nodes() const {
  std::vector<std::string> names;
  for (const auto& object : world_.storage_nodes.list()) {
    if (reachable(object->meta.name).ok()) names.push_back(object->meta.name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> StorageNodeOperations::ready_nodes(const std::string& backend) const {
  std::vector<std::string> names;
  for (const std::string& node : agent_nodes()) {
    auto object = world_.storage_nodes.get(node);
    const Json* backends = object ? base::find(*object->json, "/status/backends") : nullptr;
    if (backends == nullptr || !backends->is_array()) continue;
    for (const Json& state : *backends) {
      if (base::get_string(state, "/name") == backend && base::get_bool(state, "/ready"))
        names.push_back(node);
    }
  }
  return names;
}

void StorageNodeOperations::leave(NodeQueue& queue, const std::shared_ptr<Call>& call) {
  if (--call->waiting > 0 || call->done) return;
  // Nobody waits any more: it leaves the list at once, lest an agent that starts now begins it after all. The
  // node may still carry it out; that is why the context's end is never a final answer.
  std::erase(queue.calls, call);
  queue.commit.touch();
}

// Until the call is done, or why it is not waited for any longer. A node that cannot be asked any more is not
// waited for: the caller may have another one to ask.
absl::Status StorageNodeOperations::wait(std::unique_lock<std::mutex>& lock, const base::Context& context,
                                         const std::string& node, Call& call,
                                         std::chrono::nanoseconds silence) {
  const auto began = context.clock().now();
  while (!call.done) {
    COLLAGE_RETURN_IF_ERROR(context.status());
    // Not longer at once, since the context's clock need not be the one that condition variables know.
    call.answered.wait_for(lock, context.stop(),
                           std::min<std::chrono::nanoseconds>(context.remaining(), kLookAgain),
                           [&] { return call.done; });
    if (call.done) break;
    lock.unlock();  // the informers have locks of their own
    const absl::Status there = reachable(node);
    lock.lock();
    if (call.done) break;
    COLLAGE_RETURN_IF_ERROR(there);
    const auto mailbox = queues_.find(node);
    if (mailbox == queues_.end()) return absl::CancelledError("the operator is stopping");
    if (context.clock().now() - std::max(began, mailbox->second->heard) >= silence)
      return absl::DeadlineExceededError("it has answered nothing at all for some seconds");
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> StorageNodeOperations::run(const base::Context& context, const std::string& node,
                                                const std::string& backend, drivers::Verb verb,
                                                const Json& arguments, std::chrono::nanoseconds silence) {
  COLLAGE_RETURN_IF_ERROR(reachable(node));
  const auto began = context.clock().now();
  const base::Context mine = context.with_timeout(kCallTimeout);
  const std::string name = drivers::to_string(verb);
  std::string content = base::dump_json(arguments);

  std::unique_lock lock(mutex_);
  if (!started_) return absl::CancelledError("the operator is stopping");
  NodeQueue& mailbox = queue(node);
  const auto same = std::find_if(mailbox.calls.begin(), mailbox.calls.end(), [&](const auto& open) {
    return open->arguments == content && open->verb == name && open->backend == backend;
  });
  std::shared_ptr<Call> call = same == mailbox.calls.end() ? nullptr : *same;
  if (!call) {
    call = std::make_shared<Call>();
    call->id = absl::StrCat(process_, "-", ++next_id_);
    call->backend = backend;
    call->verb = name;
    call->text =
        base::dump_json({{"id", call->id}, {"backend", backend}, {"verb", name}, {"arguments", arguments}});
    call->arguments = std::move(content);
    mailbox.calls.push_back(call);
    if (verb == drivers::Verb::kRemove) {
      mailbox.commit.touch_spaced(kRemovalSpacing);
    } else {
      mailbox.commit.touch(mailbox.calls.size());
    }
  }
  ++call->waiting;
  const absl::Status why = wait(lock, mine, node, *call, silence);
  if (!call->done) {
    auto found = queues_.find(node);
    if (found != queues_.end()) leave(*found->second, call);
    lock.unlock();
    call_seconds().observe(std::chrono::duration<double>(context.clock().now() - began).count(),
                           {name, absl::StatusCodeToString(why.code())});
    return absl::Status(why.code(),
                        absl::StrCat("node ", node, " has not answered ", name, " for backend ", backend,
                                     " yet: ", std::string(why.message()), "; see its agent's log"));
  }
  lock.unlock();  // what is done changes no more
  call_seconds().observe(std::chrono::duration<double>(context.clock().now() - began).count(),
                         {name, absl::StatusCodeToString(call->status.code())});
  if (!call->status.ok()) return call->status;
  return call->result;
}

absl::Status StorageNodeOperations::write(const base::Context& context, NodeQueue& queue) {
  std::vector<std::string> operations;
  {
    std::lock_guard lock(mutex_);
    for (const auto& call : queue.calls) {
      if (operations.size() == kMaxOpen) break;
      operations.push_back(call->text);
    }
    if (operations.empty() && queue.written == 0) return absl::OkStatus();
  }
  // The whole list, from memory: only the leader writes it, and the fence keeps a deposed one from sending.
  // No resourceVersion: nobody else owns this field.
  auto written = world_.client.patch(context, kube::kStorageNodes, {"", queue.node}, kube::PatchType::kMerge,
                                     {{"spec", {{"operations", engine::list_of(operations)}}}}, {});
  if (!written.ok())
    return base::annotate(written.status(), absl::StrCat("write operations for node ", queue.node));
  std::lock_guard lock(mutex_);
  queue.written = operations.size();
  return absl::OkStatus();
}

void StorageNodeOperations::take_answers(const kube::StorageNodeObject& object) {
  const std::vector<Json> answers = engine::operations_in(*object.json, engine::kAnswers);
  if (answers.empty()) return;
  std::vector<std::shared_ptr<Call>> answered;  // those who wait for them want the lock
  {
    std::lock_guard lock(mutex_);
    auto found = queues_.find(object.meta.name);
    if (found == queues_.end()) return;
    NodeQueue& queue = *found->second;
    const size_t open_before = queue.calls.size();
    for (const Json& answer : answers) {
      const std::string id = base::get_string(answer, "/id");
      auto call = std::find_if(queue.calls.begin(), queue.calls.end(),
                               [&](const auto& open) { return open->id == id; });
      if (call == queue.calls.end()) continue;
      (*call)->status = answer_status(answer);
      if (const Json* result = base::find(answer, "/result")) (*call)->result = *result;
      (*call)->done = true;
      answered.push_back(std::move(*call));
      queue.calls.erase(call);
    }
    if (!answered.empty()) {
      queue.heard = context_.clock().now();
      // Calls that did not fit into the list go now; finished ones can wait for the next write.
      if (open_before > kMaxOpen) {
        queue.commit.touch(open_before);
      } else {
        queue.commit.touch_later();
      }
    }
  }
  for (const auto& call : answered) call->answered.notify_all();
}

}  // namespace collage::reconcile
