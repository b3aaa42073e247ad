#include "unit/reconcile/cutter.h"

#include "absl/strings/str_cat.h"
#include "drivers/operation.h"

namespace collage::testing {

using base::Context;
using drivers::Verb;

std::string to_string(const Act& act, Side side) {
  return absl::StrCat(side == Side::kBefore ? "before " : "after ", act.kind, " ", act.nth);
}

Cutter::Cutter(Cluster& cluster) : cluster_(cluster) {
  cluster.api.on_request([this](const ApiRequest& request) -> Fault {
    if (!request.is_write() || request.resource == "leases") return {};
    std::string kind = absl::StrCat(request.verb, " ", request.resource);
    if (!request.subresource.empty()) absl::StrAppend(&kind, "/", request.subresource);
    const bool by_node = nodes_go_on_ && kind == "patch storagenodes/status";
    switch (begins(kind)) {
      case Fate::kGoOn:
        return {};
      case Fate::kDieBefore:
        return by_node ? Fault{} : Fault::drop_before();
      case Fate::kDieAfter:
        return by_node ? Fault{.done = [this] { cluster_.die(); }}
                       : Fault::drop_after([this] { cluster_.die(); });
    }
    return {};
  });
  cluster.driver->before(
      [this](const Context&, Verb verb, const std::string&) { return driver_begins(verb); });
  cluster.driver->after([this](const Context&, Verb verb, const std::string&) { return driver_ends(verb); });
}

void Cutter::watch(FakeNodes& nodes) {
  nodes.silence([this](const std::string&, Verb verb) { return driver_begins(verb); });
  nodes.lose([this](const std::string&, Verb verb) { return driver_ends(verb); });
}

absl::Status Cutter::driver_begins(Verb verb) {
  if (verb == Verb::kCapacity) return absl::OkStatus();  // nodes measure now and then, for themselves
  if (cluster_.dead() && !nodes_go_on_) return absl::UnavailableError("the process is dead");
  const std::string kind = absl::StrCat("driver ", drivers::to_string(verb));
  const Fate fate = begins(kind);
  if (fate == Fate::kDieBefore && !nodes_go_on_) return absl::UnavailableError("killed");
  std::lock_guard lock(mutex_);
  if (fate == Fate::kDieAfter) dies_after_ = kind;
  return absl::OkStatus();
}

// A process that is dead by now never hears of the answer.
absl::Status Cutter::driver_ends(Verb verb) {
  bool here = false;
  {
    std::lock_guard lock(mutex_);
    here = dies_after_ == absl::StrCat("driver ", drivers::to_string(verb));
    if (here) dies_after_.clear();
  }
  if (here) cluster_.die();
  return cluster_.dead() && !nodes_go_on_ ? absl::UnavailableError("killed") : absl::OkStatus();
}

void Cutter::record() {
  std::lock_guard lock(mutex_);
  counts_.clear();
  acts_.clear();
  armed_ = false;
}

std::vector<Act> Cutter::acts() const {
  std::lock_guard lock(mutex_);
  return acts_;
}

std::set<std::string> Cutter::kinds() const {
  std::lock_guard lock(mutex_);
  std::set<std::string> kinds;
  for (const Act& act : acts_) kinds.insert(act.kind);
  return kinds;
}

void Cutter::cut(const Act& act, Side side) {
  record();
  std::lock_guard lock(mutex_);
  at_ = act;
  side_ = side;
  armed_ = true;
}

bool Cutter::cut_awaited() const {
  std::lock_guard lock(mutex_);
  return armed_;
}

Cutter::Fate Cutter::begins(const std::string& kind) {
  // Whatever was ended until now has left the intents.
  if (!kind.ends_with(" configmaps")) cluster_.flush_intents();
  std::lock_guard lock(mutex_);
  if (cluster_.dead()) return Fate::kGoOn;  // sent before the process died
  acts_.push_back({kind, ++counts_[kind]});
  const bool here = at_.kind.empty() ? static_cast<int>(acts_.size()) == at_.nth : acts_.back() == at_;
  if (!armed_ || !here) return Fate::kGoOn;
  armed_ = false;
  if (side_ == Side::kAfter) return Fate::kDieAfter;
  cluster_.die();
  return Fate::kDieBefore;
}

}  // namespace collage::testing
