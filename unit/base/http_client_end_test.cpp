#include <gtest/gtest.h>
#include <pplx/pplxtasks.h>

#include <future>
#include <latch>
#include <memory>
#include <thread>

#include "base/http_client.h"
#include "unit/base/http_test_server.h"

namespace collage::base {
namespace {

// All of the library's threads, kept from work until they are let go.
class BusyPool {
 public:
  BusyPool() {
    constexpr int kMoreThanThereAre = 200;
    for (int i = 0; i < kMoreThanThereAre; ++i) pplx::create_task([free = free_] { free->wait(); });
  }
  ~BusyPool() { let_go(); }
  void let_go() {
    if (!free_->try_wait()) free_->count_down();
  }

 private:
  std::shared_ptr<std::latch> free_ = std::make_shared<std::latch>(1);  // the last may outlive the test
};

TEST(HttpClientEnd, WaitsUntilTheLibraryIsDoneWithWhatWasGivenUp) {
  RawServer server;
  auto client = client_of(server.url());
  std::promise<void> seen;
  std::thread serve([&] {
    const int fd = server.accept_one();
    read_request(fd);
    write_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    seen.get_future().wait();
    close(fd);
  });
  std::unique_ptr<BusyPool> busy;
  const absl::Status status = client->stream(
      soon(), get("/watch"), 5s, [](const HttpResponse&) { return absl::OkStatus(); },
      [&](std::string_view) {
        busy = std::make_unique<BusyPool>();
        return absl::CancelledError("enough");
      });
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  auto ended = std::async(std::launch::async, [&] { client.reset(); });
  EXPECT_EQ(ended.wait_for(100ms), std::future_status::timeout) << "the library has yet to free it";
  busy->let_go();
  EXPECT_EQ(ended.wait_for(5s), std::future_status::ready);
  seen.set_value();
  serve.join();
}

}  // namespace
}  // namespace collage::base
