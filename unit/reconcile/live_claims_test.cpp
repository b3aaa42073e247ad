// Claims as they are at the moment, alone and in a crowd.
#include "operator/reconcile/live_claims.h"

#include <gtest/gtest.h>

#include <barrier>
#include <thread>

#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"

namespace collage::reconcile {
namespace {

constexpr int kClaims = 40;

std::string name_of(int i) {
  return "claim-" + std::to_string(i);
}

class LiveClaimsTest : public ::testing::Test {
 protected:
  LiveClaimsTest() {
    for (int i = 0; i < kClaims; ++i) server_.put(testing::a_claim(name_of(i)));
    world_.start(context_);
    EXPECT_TRUE(world_.wait_synced(context_).ok());
    server_.wait_until([this] { return server_.open_watches("persistentvolumeclaims") == 1; });
    server_.reset_counts();
  }
  ~LiveClaimsTest() override { world_.stop(); }

  // All of them at once; how many are there.
  int ask_all() {
    std::atomic<int> there = 0, failed = 0;
    std::barrier together(kClaims);
    std::vector<std::jthread> crowd;
    for (int i = 0; i < kClaims; ++i) {
      crowd.emplace_back([&, i] {
        together.arrive_and_wait();
        const auto live = claims_.get(context_, {"default", name_of(i)}, false);
        if (!live.ok()) ++failed;
        if (live.ok() && live->claim != nullptr) ++there;
      });
    }
    crowd.clear();
    EXPECT_EQ(failed, 0);
    return there;
  }
  // Who comes first waits with its read until a crowd has come, which lists.
  void gather_a_crowd(std::function<void()> after_each_list) {
    server_.on_request([this, after_each_list](const testing::ApiRequest& request) {
      testing::Fault fault;
      if (request.verb == "list") fault.done = after_each_list;
      if (request.verb == "get") {
        const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (lists() == 0 && std::chrono::steady_clock::now() < patience) std::this_thread::yield();
      }
      return fault;
    });
  }
  int lists() const { return server_.count("list", "persistentvolumeclaims"); }
  int reads() const { return server_.count("get", "persistentvolumeclaims"); }

  testing::FakeApiServer server_;
  const base::Context context_;
  std::unique_ptr<kube::Client> client_ = server_.client();
  kube::EventRecorder events_{*client_, "test", "test"};
  World world_{*client_, events_, {}, "collage-system"};
  LiveClaims claims_{world_};
};

TEST_F(LiveClaimsTest, OneAloneIsRead) {
  const auto live = claims_.get(context_, {"default", name_of(0)}, true);
  ASSERT_TRUE(live.ok()) << live.status();
  EXPECT_EQ(live->claim->meta.name, name_of(0));
  EXPECT_EQ(reads(), 1);
  const auto none = claims_.get(context_, {"default", "none"}, false);
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(none->claim, nullptr);
}

// The watch goes on, as it does while many claims are under way.
TEST_F(LiveClaimsTest, ACrowdSharesAListWhereTheWatchKeepsUp) {
  gather_a_crowd([this] { server_.put(testing::a_claim("another")); });
  EXPECT_EQ(ask_all(), kClaims);
  EXPECT_GE(lists(), 1);
  EXPECT_LT(reads(), kClaims / 2);
}

TEST_F(LiveClaimsTest, ACrowdReadsWhereTheWatchIsSilent) {
  gather_a_crowd([] {});
  server_.silence_watches(true);
  for (int i = 0; i < kClaims / 2; ++i) server_.erase(kube::kPersistentVolumeClaims, "default/" + name_of(i));
  EXPECT_EQ(ask_all(), kClaims - kClaims / 2);
  EXPECT_GE(lists(), 1);
  EXPECT_EQ(reads(), kClaims);
  server_.silence_watches(false);
}

}  // namespace
}  // namespace collage::reconcile
