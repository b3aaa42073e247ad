#include "unit/testing/imposter.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <list>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "absl/strings/ascii.h"
#include "base/strings.h"

namespace collage::testing {
namespace {

std::string reason(int status) {
  return status < 300 ? "OK" : status < 500 ? "Refused" : "Failed";
}

std::string head(int status, const std::map<std::string, std::string>& headers, std::string_view last) {
  std::string text = base::cat("HTTP/1.1 ", status, " ", reason(status), "\r\n");
  for (const auto& [name, value] : headers) text += base::cat(name, ": ", value, "\r\n");
  return base::cat(text, last, "\r\n\r\n");
}

// Reads requests from one connection.
class Reader {
 public:
  explicit Reader(int fd) : fd_(fd) {}

  // nullopt when the peer is gone or what it sends is no request.
  std::optional<Imposter::Request> next() {
    Imposter::Request request;
    const std::optional<std::string> first = line();
    if (!first) return std::nullopt;
    const size_t a = first->find(' '), b = first->rfind(' ');
    if (a == std::string::npos || b <= a) return std::nullopt;
    request.method = first->substr(0, a);
    request.target = first->substr(a + 1, b - a - 1);
    split_target(request);
    while (true) {
      const std::optional<std::string> header = line();
      if (!header) return std::nullopt;
      if (header->empty()) break;
      const size_t colon = header->find(':');
      if (colon == std::string::npos) return std::nullopt;
      request.headers[absl::AsciiStrToLower(header->substr(0, colon))] =
          std::string(absl::StripAsciiWhitespace(header->substr(colon + 1)));
    }
    if (request.headers.contains("expect")) {
      constexpr std::string_view kGoOn = "HTTP/1.1 100 Continue\r\n\r\n";
      if (::send(fd_, kGoOn.data(), kGoOn.size(), MSG_NOSIGNAL) < 0) return std::nullopt;
    }
    if (!body(request)) return std::nullopt;
    return request;
  }

 private:
  static void split_target(Imposter::Request& request) {
    const size_t mark = request.target.find('?');
    request.path = request.target.substr(0, mark);
    if (mark == std::string::npos) return;
    std::string_view rest = std::string_view(request.target).substr(mark + 1);
    while (!rest.empty()) {
      const size_t end = std::min(rest.find('&'), rest.size());
      const std::string_view pair = rest.substr(0, end);
      const size_t equals = std::min(pair.find('='), pair.size());
      request.query[url_decode(pair.substr(0, equals))] =
          equals < pair.size() ? url_decode(pair.substr(equals + 1)) : std::string();
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }

  bool body(Imposter::Request& request) {
    if (const auto encoding = request.headers.find("transfer-encoding");
        encoding != request.headers.end() && encoding->second == "chunked") {
      while (true) {
        const std::optional<std::string> size = line();
        if (!size) return false;
        const size_t count = std::strtoul(size->c_str(), nullptr, 16);
        if (!bytes(count, request.body) || !line()) return false;
        if (count == 0) return true;
      }
    }
    const auto length = request.headers.find("content-length");
    return length == request.headers.end() ||
           bytes(std::strtoul(length->second.c_str(), nullptr, 10), request.body);
  }

  bool fill() {
    char part[16384];
    const ssize_t got = ::recv(fd_, part, sizeof part, 0);
    if (got <= 0) return false;
    buffer_.append(part, static_cast<size_t>(got));
    return true;
  }

  std::optional<std::string> line() {
    size_t end;
    while ((end = buffer_.find("\r\n")) == std::string::npos) {
      if (!fill()) return std::nullopt;
    }
    std::string result = buffer_.substr(0, end);
    buffer_.erase(0, end + 2);
    return result;
  }

  bool bytes(size_t count, std::string& to) {
    while (buffer_.size() < count) {
      if (!fill()) return false;
    }
    to.append(buffer_, 0, count);
    buffer_.erase(0, count);
    return true;
  }

  const int fd_;
  std::string buffer_;
};

}  // namespace

std::string url_decode(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      result += static_cast<char>(std::strtoul(std::string(text.substr(i + 1, 2)).c_str(), nullptr, 16));
      i += 2;
    } else {
      result += text[i] == '+' ? ' ' : text[i];
    }
  }
  return result;
}

bool Imposter::Exchange::send_all(std::string_view bytes) {
  while (!bytes.empty() && !dropped_) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) {
      dropped_ = true;
      break;
    }
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return !dropped_;
}

void Imposter::Exchange::answer(int status, const std::map<std::string, std::string>& headers,
                                std::string_view body) {
  send_all(base::cat(head(status, headers, base::cat("Content-Length: ", body.size())), body));
}

void Imposter::Exchange::answer_half(int status, const std::map<std::string, std::string>& headers,
                                     std::string_view body) {
  send_all(base::cat(head(status, headers, base::cat("Content-Length: ", body.size())),
                     body.substr(0, body.size() / 2)));
  drop();
}

void Imposter::Exchange::begin_stream(int status, const std::map<std::string, std::string>& headers) {
  send_all(head(status, headers, "Transfer-Encoding: chunked"));
}

bool Imposter::Exchange::write(std::string_view chunk) {
  char size[32];
  snprintf(size, sizeof size, "%zx\r\n", chunk.size());
  return send_all(base::cat(size, chunk, "\r\n"));
}

void Imposter::Exchange::end_stream() {
  send_all("0\r\n\r\n");
}

bool Imposter::Exchange::peer_gone() const {
  char byte;
  const ssize_t got = ::recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
}

struct Imposter::State {
  explicit State(Handler handler_) : handler(std::move(handler_)) {}

  void serve(int fd) {
    Reader reader(fd);
    while (std::optional<Request> request = reader.next()) {
      Exchange exchange(fd);
      handler(*request, exchange);
      if (exchange.dropped()) break;
    }
    std::lock_guard lock(mutex);
    open.erase(fd);
    ::close(fd);
  }

  void accept_loop() {
    while (true) {
      const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) {
        if (stopping) return;
        continue;
      }
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      std::lock_guard lock(mutex);
      if (stopping) {
        ::close(fd);
        return;
      }
      ++accepted;
      open.insert(fd);
      threads.emplace_back([this, fd] { serve(fd); });
    }
  }

  const Handler handler;
  int listener = -1;
  int port = 0;
  std::atomic<bool> stopping = false;
  std::atomic<int> accepted = 0;
  std::mutex mutex;
  std::set<int> open;
  std::list<std::jthread> threads;
  std::jthread acceptor;
};

Imposter::Imposter(Handler handler) : state_(std::make_unique<State>(std::move(handler))) {
  state_->listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (state_->listener < 0 || ::bind(state_->listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::listen(state_->listener, 128) != 0 ||
      ::getsockname(state_->listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::abort();
  }
  state_->port = ntohs(address.sin_port);
  state_->acceptor = std::jthread([state = state_.get()] { state->accept_loop(); });
}

Imposter::~Imposter() {
  stop();
}

int Imposter::port() const {
  return state_->port;
}
std::string Imposter::url() const {
  return base::cat("http://127.0.0.1:", state_->port);
}
int Imposter::connections() const {
  return state_->accepted;
}

void Imposter::stop() {
  if (state_->stopping.exchange(true)) return;
  ::shutdown(state_->listener, SHUT_RDWR);
  state_->acceptor.join();
  {
    std::lock_guard lock(state_->mutex);
    for (const int fd : state_->open) ::shutdown(fd, SHUT_RDWR);
  }
  state_->threads.clear();
  ::close(state_->listener);
}

}  // namespace collage::testing
