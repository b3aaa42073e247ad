#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "base/http_client.h"
#include "unit/base/http_test_server.h"

namespace collage::base {
namespace {

using ::testing::HasSubstr;

TEST(HttpClientStream, HandsOverEachChunkAsItArrives) {
  RawServer server;
  const auto client = client_of(server.url());
  std::vector<std::string> got;
  std::promise<void> seen[2];
  std::thread serve([&] {
    const int fd = server.accept_one();
    read_request(fd);
    write_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n");
    write_text(fd, "5\r\nfirst\r\n");
    seen[0].get_future().wait();  // hangs unless the first is handed over before the second is sent
    write_text(fd, "6\r\nsecond\r\n");
    seen[1].get_future().wait();
    write_text(fd, "0\r\n\r\n");
    close(fd);
  });
  int headers = 0;
  const absl::Status status = client->stream(
      soon(), get("/watch"), 5s,
      [&](const HttpResponse& head) {
        ++headers;
        EXPECT_EQ(head.status, 200);
        EXPECT_EQ(head.headers.at("x-a"), "b");
        return absl::OkStatus();
      },
      [&](std::string_view chunk) {
        got.emplace_back(chunk);
        seen[got.size() - 1].set_value();
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(headers, 1);
  EXPECT_THAT(got, ::testing::ElementsAre("first", "second"));
  serve.join();
}

TEST(HttpClientStream, EndsWhenIdle) {
  RawServer server;
  const auto client = client_of(server.url());
  std::promise<void> done;
  std::thread serve([&] {
    const int fd = server.accept_one();
    read_request(fd);
    write_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    done.get_future().wait();
    close(fd);
  });
  int chunks = 0;
  const absl::Status status = client->stream(
      soon(), get("/"), 200ms, [](const HttpResponse&) { return absl::OkStatus(); },
      [&](std::string_view) {
        ++chunks;
        return absl::OkStatus();
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(), HasSubstr("nothing received for 200 ms"));
  EXPECT_EQ(chunks, 1);
  done.set_value();
  serve.join();
}

TEST(HttpClientStream, EndsAtOnceWhenStoppedAndWithWhatACallbackSays) {
  TestServer server = plain_server();
  server->Get("/", [](const httplib::Request&, httplib::Response& out) {
    out.set_chunked_content_provider("text/plain", [](size_t, httplib::DataSink& sink) {
      std::this_thread::sleep_for(5ms);
      return sink.write("tick", 4);
    });
  });
  server.start();
  const auto client = client_of(server.url());
  const auto accept = [](const HttpResponse&) { return absl::OkStatus(); };
  std::stop_source stop;
  EXPECT_EQ(client
                ->stream(Context(stop.get_token()), get("/"), 5s, accept,
                         [&](std::string_view) {
                           stop.request_stop();
                           return absl::OkStatus();
                         })
                .code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(client->stream(soon(), get("/"), 5s, accept,
                           [](std::string_view) { return absl::DataLossError("mine"); }),
            absl::DataLossError("mine"));
  EXPECT_EQ(client->stream(
                soon(), get("/"), 5s, [](const HttpResponse&) { return absl::DataLossError("head"); },
                [](std::string_view) { return absl::OkStatus(); }),
            absl::DataLossError("head"));
  EXPECT_EQ(client
                ->stream(Context().with_timeout(100ms), get("/"), 5s, accept,
                         [](std::string_view) { return absl::OkStatus(); })
                .code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(HttpClientStream, SaysThatTheConnectionBroke) {
  RawServer server;
  const auto client = client_of(server.url());
  std::thread serve([&] {
    const int fd = server.accept_one();
    read_request(fd);
    write_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n5\r\nab");
    close(fd);
  });
  const absl::Status status = client->stream(
      soon(), get("/"), 5s, [](const HttpResponse&) { return absl::OkStatus(); },
      [](std::string_view) { return absl::OkStatus(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  serve.join();
}

// While the caller takes nothing, the server gets stuck: its count stands still.
void wait_until_stuck(const std::atomic<size_t>& sent) {
  std::promise<void> never;
  const auto future = never.get_future();
  size_t last = 0;
  do {
    last = sent;
    future.wait_for(200ms);
  } while (sent != last);
}

TEST(HttpClientStream, HoldsTheServerBackWhileTheCallerIsSlow) {
  constexpr size_t kPiece = 256 << 10, kPieces = 64;
  std::atomic<size_t> sent = 0;
  TestServer server = plain_server();
  server->Get("/", [&](const httplib::Request&, httplib::Response& out) {
    out.set_chunked_content_provider("text/plain", [&](size_t, httplib::DataSink& sink) {
      const std::string piece(kPiece, 'x');
      if (!sink.write(piece.data(), piece.size())) return false;
      if (++sent == kPieces) sink.done();
      return true;
    });
  });
  server.start();
  size_t received = 0;
  const absl::Status status =
      client_of(server.url())
          ->stream(
              soon(), get("/"), 5s, [](const HttpResponse&) { return absl::OkStatus(); },
              [&](std::string_view chunk) {
                if (received == 0) {
                  wait_until_stuck(sent);
                  EXPECT_LT(sent, kPieces);  // well before the end
                }
                received += chunk.size();
                return absl::OkStatus();
              });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(received, kPiece * kPieces);
}

// The library's pool has one thread here, as in the program: whoever blocks it stops every request.
TEST(HttpClientStream, GivenUpWhileAPieceIsHeldBackStopsNoOtherRequest) {
  std::atomic<size_t> sent = 0;
  TestServer server = plain_server();
  server->Get("/endless", [&](const httplib::Request&, httplib::Response& out) {
    out.set_chunked_content_provider("text/plain", [&](size_t, httplib::DataSink& sink) {
      const std::string piece(256 << 10, 'x');
      if (!sink.write(piece.data(), piece.size())) return false;
      ++sent;
      return true;
    });
  });
  server->Get("/",
              [](const httplib::Request&, httplib::Response& out) { out.set_content("x", "text/plain"); });
  server.start();
  const auto client = client_of(server.url());
  const absl::Status status = client->stream(
      soon(), get("/endless"), 5s, [](const HttpResponse&) { return absl::OkStatus(); },
      [&](std::string_view) {
        wait_until_stuck(sent);
        return absl::CancelledError("enough");
      });
  EXPECT_EQ(status.message(), "enough");
  const auto answer = client->send(soon(), get("/"));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->body, "x");
}

}  // namespace
}  // namespace collage::base
