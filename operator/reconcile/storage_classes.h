#pragma once

#include <string>

#include "absl/status/status.h"
#include "base/context.h"
#include "operator/engine/backend_spec.h"
#include "operator/reconcile/corrections.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

// What one kept StorageClass needs, as a pure decision.
enum class ClassStep {
  kNone,
  kCreate,
  kUpdate,           // a field that may change
  kRecreate,         // an immutable field changed: deleted and made again; volumes are untouched
  kConflictForeign,  // a class of that name that is not ours: never touched
};
ClassStep decide_class(const engine::BackendSpec& backend, const engine::ClassSpec& wanted,
                       const kube::StorageClass* present);

// The object as it should be.
base::Json class_object(const engine::BackendSpec& backend, const engine::ClassSpec& wanted);

// Brings the StorageClasses of a backend to what its spec says: makes, changes and removes those with our
// label, corrects drift. ALREADY_EXISTS names the conflict: a class that is not ours, or a second default
// class. Other errors are the API server's.
absl::Status keep_classes(const base::Context& context, World& world, const engine::BackendSpec& backend,
                          const kube::BackendObject& object, Settling& settling);
// Removes all classes of the backend.
absl::Status remove_classes(const base::Context& context, World& world, const std::string& backend);

}  // namespace collage::reconcile
