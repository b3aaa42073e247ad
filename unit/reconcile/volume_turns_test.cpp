// One call at a time on a volume, whichever controllers make them.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/metrics.h"
#include "unit/reconcile/attach_fixture.h"

namespace collage::reconcile {
namespace {

using base::Json;
using drivers::Verb;

// The storage system hangs in one call, and the test sees what else it is asked meanwhile.
struct VolumeTurns : testing::AttachTest {
  VolumeTurns() {
    cluster.driver->before([this](const base::Context&, Verb verb, const std::string&) {
      if (verb == Verb::kAttach || verb == Verb::kDetach || verb == Verb::kRemove) enter(verb);
      return absl::OkStatus();
    });
  }
  ~VolumeTurns() override {
    let_go();
    cluster.kill();
  }
  void enter(Verb verb) {
    std::unique_lock lock(mutex_);
    if (hanging_) overlapped_ = true;
    if (hanging_ || verb != hangs_) return;
    hangs_.reset();
    hanging_ = true;
    changed_.wait(lock, [this] { return !hanging_; });
  }
  void hang_in(Verb verb) {
    std::lock_guard lock(mutex_);
    hangs_ = verb;
  }
  bool wait_hanging() {
    return cluster.wait([this] {
      std::lock_guard lock(mutex_);
      return hanging_;
    });
  }
  void let_go() {
    std::lock_guard lock(mutex_);
    hangs_.reset();
    hanging_ = false;
    changed_.notify_all();
  }
  bool overlapped() {
    std::lock_guard lock(mutex_);
    return overlapped_;
  }
  static double sent_away(std::string_view controller) {
    static const base::Counter reconciles("collage_reconcile_total", "Reconciles by how they ended.",
                                          {"controller", "outcome"});
    return reconciles.value({controller, "requeue_after"});
  }
  // Begins something, and answers whether it has to come again while the call hangs.
  bool is_sent_away(std::string_view controller, const std::function<void()>& begin) {
    const double before = sent_away(controller);
    begin();
    const bool decided = cluster.wait([&] { return overlapped() || sent_away(controller) > before; });
    return decided && !overlapped();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Verb> hangs_;
  bool hanging_ = false, overlapped_ = false;
};

TEST_F(VolumeTurns, AnAttachWaitsForTheDetachUnderWay) {
  cluster.start();
  attach_to("node-a");
  hang_in(Verb::kDetach);
  delete_attachment("node-a");
  ASSERT_TRUE(wait_hanging());
  EXPECT_TRUE(is_sent_away("attach/fast", [&] { cluster.api.put(attachment("node-b")); }));
  let_go();
  EXPECT_TRUE(cluster.wait([&] { return attached("node-b"); }));
  EXPECT_EQ(holder(), "id-node-b");
}

TEST_F(VolumeTurns, ADetachWaitsForTheAttachUnderWay) {
  cluster.start();
  attach_to("node-a");
  hang_in(Verb::kAttach);
  cluster.api.put(attachment("node-b"));
  ASSERT_TRUE(wait_hanging());
  EXPECT_TRUE(is_sent_away("detach/fast", [&] { delete_attachment("node-a"); }));
  let_go();
  EXPECT_TRUE(cluster.wait([&] { return attached("node-b"); }));
  EXPECT_EQ(holder(), "id-node-b");
}

// Somebody took the finalizer off the attachment while it was being detached.
TEST_F(VolumeTurns, ADeletionWaitsForTheDetachUnderWay) {
  cluster.start();
  attach_to("node-a");
  hang_in(Verb::kDetach);
  delete_attachment("node-a");
  ASSERT_TRUE(wait_hanging());
  cluster.api.erase(kube::kVolumeAttachments, "csi-pv-1-node-a");
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.attachments.get("csi-pv-1-node-a") == nullptr; }));
  EXPECT_TRUE(is_sent_away("reclaim/fast", [&] {
    cluster.api.update(kube::kPersistentVolumes, "pv-1",
                       [](Json& json) { json["status"]["phase"] = "Released"; });
  }));
  let_go();
  EXPECT_TRUE(cluster.wait([&] { return !cluster.pv("pv-1").has_value(); }));
  EXPECT_TRUE(cluster.driver->volumes().empty());
}

}  // namespace
}  // namespace collage::reconcile
