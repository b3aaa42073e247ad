#pragma once

#include <memory>
#include <string>

#include "base/context.h"
#include "operator/kube/client.h"
#include "operator/kube/objects.h"

namespace collage::kube {

// kRoutine is shown as Normal: a step that went well, of which there may be thousands at once.
enum class EventType { kNormal, kWarning, kRoutine };

struct EventTarget {
  std::string api_version, kind, name_space, name, uid, resource_version;
};
template <typename T>
EventTarget event_target(const T& object) {
  return {T::kResource.api_version(),
          std::string(T::kResource.kind),
          object.meta.name_space.str(),
          object.meta.name,
          object.meta.uid,
          object.meta.resource_version};
}

// Events for people, in the background: the same event again within ten minutes counts up the first one (at
// most one patch every 10 s each), a burst beyond 25 a target is dropped. Of the routine ones 50 are sent at
// once and two a second after that, so that a storm of claims does not cost as many writes again. Never
// blocks; at most 1,000 wait, then the oldest is dropped. Thread safe.
class EventRecorder {
 public:
  // component e.g. "collage-operator"; instance: the pod's name. Events of cluster-scoped objects go to the
  // namespace "default".
  EventRecorder(Client& client, std::string component, std::string instance,
                const base::Clock& clock = base::Clock::real());
  ~EventRecorder();
  void event(const EventTarget& target, EventType type, const std::string& reason,
             const std::string& message);
  // Sends what waits, until the context ends.
  void flush(const base::Context& context);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace collage::kube
