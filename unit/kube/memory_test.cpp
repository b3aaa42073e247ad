#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "operator/kube/informer.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"

// What ten thousand claims and volumes cost, read through the real path: pages over HTTP, parsed one by one.
namespace collage::kube {
namespace {

using base::Json;
using namespace collage::testing;  // NOLINT: builders read as words

constexpr int kObjects = 10000;

double rss_mib() {
  std::ifstream file("/proc/self/statm");
  size_t total = 0, resident = 0;
  file >> total >> resident;
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

std::string uid(int i) {
  char text[64];
  snprintf(text, sizeof text, "%08x-5b1c-4c6e-9f43-%012x", i * 2654435761u, i);
  return text;
}

Json managed_fields() {
  return Json::array(
      {{{"manager", "kube-controller-manager"},
        {"operation", "Update"},
        {"fieldsV1",
         {{"f:metadata",
           {{"f:annotations", {{"f:pv.kubernetes.io/bound-by-controller", Json::object()}}}}}}}}});
}

Json claim(int i) {
  return a_claim("data-app-" + std::to_string(i))
      .in("team-" + std::to_string(i % 20))
      .uid(uid(i))
      .bound()
      .on_node("node-a")
      .finalizer("kubernetes.io/pvc-protection")
      .set("/metadata/managedFields", managed_fields());
}

Json volume(int i) {
  return a_volume("pvc-" + uid(i))
      .claimed_by("team-" + std::to_string(i % 20), "data-app-" + std::to_string(i), uid(i))
      .bound()
      .finalizer("kubernetes.io/pv-protection")
      .finalizer("external-provisioner.volume.kubernetes.io/finalizer")
      .attribute("backend", "fast")
      .set("/metadata/managedFields", managed_fields());
}

// The fake server's own objects are there before the first measurement.
TEST(Memory, TenThousandClaimsAndVolumesAreSmall) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer has its own allocator";
#endif
  FakeApiServer server;
  for (int i = 0; i < kObjects; ++i) {
    server.put(claim(i));
    server.put(volume(i));
  }
  server.compact();
  const auto client = server.client();
  const base::Context context;
  // Once around, so that connections, threads and their buffers are there.
  ASSERT_TRUE(client->list(context, kPersistentVolumes, {}, [](Json&) { return absl::OkStatus(); }).ok());
  malloc_trim(0);
  const double before = rss_mib();

  Informer<Claim> claims(*client);
  Informer<Volume> volumes(*client);
  volumes.add_index("claim", [](const Volume& each) { return std::vector<std::string>{each.claim_uid}; });
  claims.start(context);
  volumes.start(context);
  ASSERT_TRUE(claims.wait_synced(context.with_timeout(std::chrono::seconds(60))).ok());
  ASSERT_TRUE(volumes.wait_synced(context.with_timeout(std::chrono::seconds(60))).ok());
  EXPECT_EQ(claims.size() + volumes.size(), 2u * kObjects);
  EXPECT_EQ(volumes.by_index("claim", uid(7)).size(), 1u);
  malloc_trim(0);
  const double growth = rss_mib() - before;
  RecordProperty("growth_mib", std::to_string(growth));
  printf("10,000 claims and 10,000 volumes: %.1f MiB\n", growth);
  EXPECT_LT(growth, 30);

  // A relist replaces key by key: it must not cost a second copy.
  server.compact();
  server.end_watches();
  ASSERT_TRUE(
      server.wait_until([&] { return server.count("list", "persistentvolumes") >= 3 * kObjects / 500; },
                        std::chrono::seconds(60)));
  ASSERT_TRUE(server.wait_until([&] { return server.open_watches() == 2; }, std::chrono::seconds(60)));
  malloc_trim(0);
  const double after = rss_mib() - before;
  printf("after a relist: %.1f MiB\n", after);
  EXPECT_LT(after, 35);
}

}  // namespace
}  // namespace collage::kube
