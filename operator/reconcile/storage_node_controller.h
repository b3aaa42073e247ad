#pragma once

#include <string>

#include "operator/kube/controller.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

// One StorageNode for every Node, of the same name; it goes when its Node is gone and nothing is attached
// there. Also takes the startup taint "<driver>/agent-not-ready" off a Node once its CSINode lists that
// driver.
class StorageNodeController {
 public:
  explicit StorageNodeController(World& world);
  void start(const base::Context& context) { controller_.start(context); }
  void stop() { controller_.stop(); }

 private:
  kube::Outcome reconcile(const base::Context& context, const std::string& node);
  absl::Status remove_taints(const base::Context& context, const kube::Node& node);

  World& world_;
  kube::Controller controller_;
};

}  // namespace collage::reconcile
