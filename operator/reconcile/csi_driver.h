#pragma once

#include "absl/status/status.h"
#include "base/context.h"
#include "base/json.h"
#include "drivers/kind.h"
#include "operator/reconcile/corrections.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

// The CSIDriver of a kind, from the table of kinds alone: no StorageBackend changes it.
base::Json csi_driver_object(const drivers::Kind& kind);

// Makes it, or changes what may change. FAILED_PRECONDITION when the one that exists differs in a field that
// never can (attachRequired, volumeLifecycleModes): somebody else made it, and it says how to go on.
absl::Status keep_csi_driver(const base::Context& context, World& world, const drivers::Kind& kind,
                             Settling& settling);

}  // namespace collage::reconcile
