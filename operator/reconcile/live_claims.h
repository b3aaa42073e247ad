#pragma once

#include <atomic>
#include <memory>

#include "drivers/volume.h"
#include "operator/engine/shared_reads.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

struct LiveClaim {
  std::shared_ptr<const kube::Claim> claim;  // nullptr: there is none of that name
  drivers::StringMap annotations;            // when asked for
};

// Claims as they are at the moment, although the cache may lag behind a delete (contract 35). One that comes
// alone is read. A crowd shares one small list, which tells how far the API server is: in a crowd the watch
// has brought all of that within milliseconds, and the cache is as good as a read then. Else it is read.
// Thread safe.
class LiveClaims {
 public:
  static constexpr int kCrowd = 3;  // who ask at the same time, from which on they share

  explicit LiveClaims(World& world);

  absl::StatusOr<LiveClaim> get(const base::Context& context, const kube::Key& key, bool annotations);

 private:
  absl::StatusOr<LiveClaim> read(const base::Context& context, const kube::Key& key, bool annotations);
  // The cache was seen to have everything that had happened when this was called.
  bool cache_has_caught_up(const base::Context& context);

  World& world_;
  engine::SharedReads<uint64_t> versions_;
  std::atomic<int> asking_ = 0;
};

}  // namespace collage::reconcile
