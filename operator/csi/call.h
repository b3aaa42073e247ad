#pragma once

#include <grpcpp/grpcpp.h>

#include <array>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "base/context.h"
#include "base/workers.h"

namespace collage::csi {

grpc::Status to_grpc(const absl::Status& status);

// Runs the work of RPCs outside gRPC's threads, in a few lanes of bounded threads: calls for one backend
// share a lane, so that a slow one holds up few others. When too many wait in a lane, further calls are
// answered UNAVAILABLE, which every orchestrator repeats. Thread safe.
class Lanes {
 public:
  Lanes();
  using Work = std::function<absl::Status(const base::Context& context)>;

  // Answers the reactor that a callback handler returns. `work` gets a context that ends a little before the
  // caller's deadline, so that the answer still arrives, and when the caller cancels. The request and the
  // response that it uses live until then. driver, method: for logs and metrics; volume: the handle, which
  // chooses the lane.
  grpc::ServerUnaryReactor* run(grpc::CallbackServerContext* context, const std::string& driver,
                                const char* method, const std::string& volume, Work work);
  // After the servers are down: what waits is dropped.
  void stop();

 private:
  std::array<std::unique_ptr<base::Workers>, 8> lanes_;
};

// For handlers that never block.
grpc::ServerUnaryReactor* finish(grpc::CallbackServerContext* context, const absl::Status& status);

}  // namespace collage::csi
