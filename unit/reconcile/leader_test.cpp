// Two operators over one API server and one storage system. Each has a clock of its own, which the test
// moves.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "operator/engine/fenced_driver.h"
#include "operator/kube/lease.h"
#include "unit/reconcile/cluster.h"
#include "unit/testing/fake_clock.h"

namespace collage::reconcile {
namespace {

using base::Json;
using drivers::Verb;
using std::chrono::hours;
using std::chrono::seconds;
using testing::Cluster;
using testing::FakeClock;
using testing::Fault;

// The lease as the client asks it, counted: what it lets through reaches the server a moment later.
struct CountingFence final : kube::Fence {
  explicit CountingFence(const kube::Lease& lease) : lease(lease) {}
  absl::StatusOr<std::chrono::nanoseconds> holds_for() const override {
    auto holds = lease.holds_for();
    ++(holds.ok() ? let_through : refused);
    return holds;
  }
  const kube::Lease& lease;
  mutable std::atomic<int> let_through = 0, refused = 0;
};

std::unique_ptr<kube::Client> client_of(Cluster& cluster, const std::string& name, const kube::Fence* fence) {
  auto client = kube::make_client(cluster.api.config(), fence, name);
  if (!client.ok()) std::abort();
  return std::move(*client);
}

// One replica as the operator's role wires it.
struct Replica {
  Replica(Cluster& cluster, const std::string& name)
      : cluster(cluster),
        name(name),
        lease_client(client_of(cluster, name + "-lease", nullptr)),
        lease(*lease_client, {.key = {"collage", "collage-operator"}, .identity = name}, clock),
        fence(lease),
        client(client_of(cluster, name, &fence)),
        events(*client, "collage-operator", name),
        intent_store(*client, "collage"),
        world(*client, events, cluster.kinds, "collage"),
        provisioner(world, cluster.options.provision),
        reclaimer(world, cluster.options.reclaim),
        attacher(world, &cluster.node_answers, cluster.options.attach),
        intents(std::make_shared<engine::Intents>(intent_store, "fast")) {
    world.cluster_id = "cluster-1";
    world.leads = [this] {
      return lease.holds_for().ok() ? absl::OkStatus() : absl::CancelledError("this process leads no more");
    };
    world.start(context);
  }
  ~Replica() {
    stop.request_stop();
    if (waiting.joinable()) waiting.join();
    attacher.stop();
    reclaimer.stop();
    provisioner.stop();
    world.stop();
    lease.release(base::Context());
  }

  // Waits for the lease in a thread, then leads until it is lost.
  void begin() {
    waiting = std::jthread([this] {
      if (!world.wait_synced(context).ok()) return;
      if (!lease.acquire(base::Context(stop.get_token(), clock), kube::MissingLease::kFree).ok()) return;
      lease.keep(base::Context(stop.get_token(), clock), [this] { lost = true; });
      leads = true;
      auto backend = std::make_shared<engine::Backend>();
      backend->spec.name = "fast";
      backend->spec.kind = "fake";
      backend->system_id = "fake-system";
      backend->driver = engine::make_fenced_driver(cluster.driver, world.leads);
      backend->intents = intents;
      if (!intents->load(context).ok()) return;
      world.backends.set(std::move(backend));
      provisioner.start(context);
      reclaimer.start(context);
      attacher.start(context);
    });
  }

  Cluster& cluster;
  const std::string name;
  FakeClock clock;
  std::stop_source stop;
  const base::Context context = base::Context(stop.get_token()).with_field("replica", name);
  std::unique_ptr<kube::Client> lease_client;
  kube::Lease lease;
  CountingFence fence;
  std::unique_ptr<kube::Client> client;
  kube::EventRecorder events;
  ConfigMapIntents intent_store;
  World world;
  Provisioner provisioner;
  Reclaimer reclaimer;
  AttachController attacher;
  std::shared_ptr<engine::Intents> intents;
  std::jthread waiting;
  std::atomic<bool> leads = false, lost = false;
};

std::string replica_of(const base::Context& context) {
  for (const base::Field& field : context.fields()) {
    if (field.key == "replica") return field.value;
  }
  return "";
}

// Who did what: writes by the user agent (without Leases), calls of the driver by the context's field.
class Witness {
 public:
  explicit Witness(Cluster& cluster) {
    cluster.api.on_request([this](const testing::ApiRequest& request) {
      if (!request.is_write() || request.resource == "leases") return Fault{};
      const auto agent = request.headers.find("user-agent");
      std::lock_guard lock(mutex_);
      ++writes_[agent == request.headers.end() ? "" : agent->second];
      return Fault{};
    });
    cluster.driver->before([this](const base::Context& context, Verb, const std::string&) {
      const std::string who = replica_of(context);
      std::unique_lock lock(mutex_);
      ++calls_[who];
      // What is inside the provider when its caller is stopped.
      while (held_ == who) changed_.wait(lock);
      return absl::OkStatus();
    });
  }
  int writes(const std::string& who) {
    std::lock_guard lock(mutex_);
    return writes_[who];
  }
  int calls(const std::string& who) {
    std::lock_guard lock(mutex_);
    return calls_[who];
  }
  // Calls of this replica stay inside the provider until release().
  void hold(const std::string& who) {
    std::lock_guard lock(mutex_);
    held_ = who;
  }
  void release() {
    std::lock_guard lock(mutex_);
    held_.clear();
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int> writes_, calls_;
  std::string held_;
};

std::string claim_name(int i) {
  return absl::StrCat("c-", i);
}

void put_claims(Cluster& cluster, int from, int to) {
  for (int i = from; i < to; ++i) cluster.api.put(Cluster::claim(claim_name(i)).uid(absl::StrCat("uid-", i)));
}

bool all_bound(const Cluster& cluster, int count) {
  for (int i = 0; i < count; ++i) {
    if (!cluster.bound(claim_name(i))) return false;
  }
  return true;
}

class Leader : public ::testing::Test {
 protected:
  void begin() {
    a_.begin();
    ASSERT_TRUE(cluster_.wait([&] { return a_.leads.load(); }));
    b_.begin();
    ASSERT_TRUE(cluster_.wait([&] { return cluster_.api.open_watches("leases") == 1; }))
        << "b waits for the lease";
  }
  // b's clock goes on until the lease of one who vanished is over.
  void let_b_take_over() {
    b_.clock.advance(seconds(16));
    ASSERT_TRUE(cluster_.wait([&] {
      cluster_.api.end_watches();  // its wait is in real time
      return b_.leads.load();
    }));
  }

  Cluster cluster_;
  Witness witness_{cluster_};
  Replica a_{cluster_, "a"}, b_{cluster_, "b"};
};

// As by SIGSTOP and SIGCONT: threads of a are in the middle of everything, and go on after another has taken
// over.
TEST_F(Leader, OneThatWasStoppedAndContinuedWritesNothingAndCallsNobody) {
  constexpr int kClaims = 40, kVolumes = 20;
  begin();
  witness_.hold("a");
  std::vector<std::string> released;
  for (int i = 0; i < kVolumes; ++i) {
    const std::string volume = absl::StrCat("old-", i);
    released.push_back(volume);
    cluster_.api.put(cluster_.volume(volume).released());
  }
  put_claims(cluster_, 0, kClaims);
  // Four creates and four deletes are inside the provider; the rest waits in a's queues.
  ASSERT_TRUE(cluster_.wait([&] { return witness_.calls("a") == 8; }));

  a_.clock.suspend(seconds(30));
  ASSERT_TRUE(cluster_.wait([&] { return witness_.writes("a") == a_.fence.let_through; }))
      << "what a had sent has arrived";
  const int writes = witness_.writes("a"), calls = witness_.calls("a"), refused = a_.fence.refused;

  let_b_take_over();
  witness_.release();  // a is continued: its calls come back, and all that waited is worked on
  put_claims(cluster_, kClaims, kClaims + 10);
  ASSERT_TRUE(cluster_.wait([&] { return all_bound(cluster_, kClaims + 10); }));
  ASSERT_TRUE(cluster_.wait([&] {
    for (const std::string& volume : released) {
      if (cluster_.pv(volume)) return false;
    }
    return true;
  }));
  ASSERT_TRUE(cluster_.wait([&] { return a_.fence.refused > refused; }))
      << "a never tried: this showed nothing";
  EXPECT_EQ(witness_.writes("a"), writes);
  EXPECT_EQ(a_.fence.let_through, writes);
  EXPECT_EQ(witness_.calls("a"), calls);
  EXPECT_EQ(cluster_.driver->volumes().size(), size_t{kClaims + 10})
      << "one volume a claim, none of the deleted";
  EXPECT_FALSE(a_.lost) << "all of this before a's keeper looked at its clock";
  a_.clock.advance(seconds(5));
  EXPECT_TRUE(cluster_.wait([&] { return a_.lost.load(); }));
}

TEST_F(Leader, HandsOverAtOnceWhenItEnds) {
  begin();
  put_claims(cluster_, 0, 5);
  ASSERT_TRUE(cluster_.wait([&] { return all_bound(cluster_, 5); }));
  a_.stop.request_stop();
  a_.provisioner.stop();
  a_.reclaimer.stop();
  a_.attacher.stop();
  a_.lease.release(base::Context());
  // The intents' own writer may have sent one just before, with the lease.
  ASSERT_TRUE(cluster_.wait([&] { return witness_.writes("a") == a_.fence.let_through; }))
      << "what a had sent has arrived";
  const int writes = witness_.writes("a");
  ASSERT_TRUE(cluster_.wait([&] { return b_.leads.load(); })) << "without any time passing";
  put_claims(cluster_, 5, 10);
  EXPECT_TRUE(cluster_.wait([&] { return all_bound(cluster_, 10); }));
  EXPECT_EQ(witness_.writes("a"), writes);
  EXPECT_EQ(a_.fence.let_through, writes);
}

TEST_F(Leader, JumpsOfTheDateChangeNothing) {
  b_.clock.advance(hours(10000));  // switched on at another time
  begin();
  const base::Clock::Wall noon = base::parse_rfc3339("2026-06-01T12:00:00Z");
  const hours jumps[] = {hours(0), hours(9), hours(-9), hours(100000), hours(-100000)};
  int claims = 0;
  for (const hours jump : jumps) {
    a_.clock.set_wall(noon + jump);
    b_.clock.set_wall(noon - jump);
    const int renewals = cluster_.api.count("update", "leases");
    ASSERT_TRUE(a_.clock.wait_for_sleepers(1));
    a_.clock.advance(seconds(5));
    b_.clock.advance(seconds(5));
    ASSERT_TRUE(cluster_.wait([&] { return cluster_.api.count("update", "leases") > renewals; }));
    ASSERT_TRUE(cluster_.wait([&] { return a_.lease.holds_for().value_or(seconds(0)) == seconds(10); }));
    ASSERT_TRUE(cluster_.wait([&] { return cluster_.api.open_watches("leases") == 1; }))
        << "b goes on waiting";
    cluster_.api.end_watches();  // b looks again
    put_claims(cluster_, claims, claims + 2);
    claims += 2;
    ASSERT_TRUE(cluster_.wait([&] { return all_bound(cluster_, claims); }));
  }
  EXPECT_FALSE(b_.leads);
  EXPECT_FALSE(a_.lost);
  EXPECT_EQ(witness_.writes("b"), 0);
  EXPECT_EQ(witness_.calls("b"), 0);
}

}  // namespace
}  // namespace collage::reconcile
