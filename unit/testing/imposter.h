#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace collage::testing {

// A plain HTTP/1.1 server on 127.0.0.1 that can also misbehave: drop a connection at any point, send half an
// answer, stay silent. One thread a connection. The handler runs on it and must answer, stream or drop.
class Imposter {
 public:
  struct Request {
    std::string method;
    std::string target;                          // as sent
    std::string path;                            // still percent-encoded, without the query
    std::map<std::string, std::string> query;    // decoded
    std::map<std::string, std::string> headers;  // names in lower case
    std::string body;
  };

  class Exchange {
   public:
    explicit Exchange(int fd) : fd_(fd) {}
    void answer(int status, const std::map<std::string, std::string>& headers, std::string_view body);
    // As answer(), but only half the body is sent before the connection is dropped.
    void answer_half(int status, const std::map<std::string, std::string>& headers, std::string_view body);
    // A chunked answer. write() is false once the peer is gone.
    void begin_stream(int status, const std::map<std::string, std::string>& headers);
    bool write(std::string_view chunk);
    void end_stream();
    // Closes the connection with whatever was sent so far.
    void drop() { dropped_ = true; }
    bool dropped() const { return dropped_; }
    bool peer_gone() const;

   private:
    bool send_all(std::string_view bytes);
    const int fd_;
    bool dropped_ = false;
  };

  using Handler = std::function<void(const Request&, Exchange&)>;

  explicit Imposter(Handler handler);
  ~Imposter();  // stop()
  Imposter(const Imposter&) = delete;

  int port() const;
  std::string url() const;  // "http://127.0.0.1:<port>"
  // Closes every connection and joins. Handlers that wait must be told to return first.
  void stop();
  // Connections accepted so far.
  int connections() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string url_decode(std::string_view text);

}  // namespace collage::testing
