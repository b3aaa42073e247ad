#include "base/http_client.h"

#include <cpprest/http_client.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pplx/threadpool.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/strip.h"
#include "base/http_exchange.h"
#include "base/http_tls.h"
#include "base/status.h"
#include "base/strings.h"

// How it works: a request runs on the library's pool, whose threads never wait for anything of ours. What
// arrives goes into an Exchange, where the calling thread waits for it, for its stop token and for its
// deadline. A caller that gives up closes the connection and goes.
namespace collage::base {
namespace {

namespace http = web::http;
namespace streams = concurrency::streams;

constexpr char kSentPayload[] = "collage.base/not-sent";
constexpr int kMaxStaleConnections = 1000;  // more than a pool ever holds
constexpr std::chrono::seconds kLongestEnd{2};

// A pooled connection that the server closed while it was idle: nothing was sent on it.
struct StaleConnection {};

using Bytes = streams::details::streambuf_state_manager<uint8_t>;

// What both directions of a stream buffer have in common: nothing but the one operation that the library's
// client uses.
class OneWayBuffer : public Bytes {
 public:
  explicit OneWayBuffer(std::ios_base::openmode mode) : Bytes(mode) {}
  // Not seekable: the library must not replay a request with a body on its own (see start).
  bool can_seek() const override { return false; }
  bool has_size() const override { return false; }
  size_t buffer_size(std::ios_base::openmode) const override { return 0; }
  void set_buffer_size(size_t, std::ios_base::openmode) override {}
  size_t in_avail() const override { return 0; }
  pos_type getpos(std::ios_base::openmode) const override { return static_cast<pos_type>(traits::eof()); }
  pos_type seekpos(pos_type, std::ios_base::openmode) override {
    return static_cast<pos_type>(traits::eof());
  }
  pos_type seekoff(off_type, std::ios_base::seekdir, std::ios_base::openmode) override {
    return static_cast<pos_type>(traits::eof());
  }
  bool acquire(uint8_t*&, size_t&) override { return false; }
  void release(uint8_t*, size_t) override {}

  // The library waits for this on a thread of its pool, after a piece that was refused, and that may be the
  // only one. Bytes::close() does all at once, but what it answers is completed by the pool.
  using Bytes::close;
  pplx::task<void> close(std::ios_base::openmode mode, std::exception_ptr error) override {
    (void)Bytes::close(mode, error);
    return pplx::task_from_result();
  }

 protected:
  pplx::task<int_type> none() const { return pplx::task_from_result<int_type>(traits::eof()); }
  pplx::task<int_type> _putc(uint8_t) override { return none(); }
  pplx::task<size_t> _putn(const uint8_t*, size_t) override { return pplx::task_from_result<size_t>(0); }
  pplx::task<int_type> _bumpc() override { return none(); }
  int_type _sbumpc() override { return traits::eof(); }
  pplx::task<int_type> _getc() override { return none(); }
  int_type _sgetc() override { return traits::eof(); }
  pplx::task<int_type> _nextc() override { return none(); }
  pplx::task<int_type> _ungetc() override { return none(); }
  pplx::task<size_t> _getn(uint8_t*, size_t) override { return pplx::task_from_result<size_t>(0); }
  size_t _scopy(uint8_t*, size_t) override { return 0; }
  pplx::task<bool> _sync() override { return pplx::task_from_result(true); }
  uint8_t* _alloc(size_t) override { return nullptr; }
  void _commit(size_t) override {}
};

// The request's body.
class Source : public OneWayBuffer {
 public:
  explicit Source(std::string body) : OneWayBuffer(std::ios_base::in), body_(std::move(body)) {}

 protected:
  pplx::task<size_t> _getn(uint8_t* to, size_t count) override {
    const size_t size = std::min(count, body_.size() - at_);
    memcpy(to, body_.data() + at_, size);
    at_ += size;
    return pplx::task_from_result(size);
  }

 private:
  const std::string body_;
  size_t at_ = 0;
};

// The answer's body, handed to the waiting caller piece by piece.
class Sink : public OneWayBuffer {
 public:
  explicit Sink(std::shared_ptr<Exchange> exchange)
      : OneWayBuffer(std::ios_base::out), exchange_(std::move(exchange)) {}

 protected:
  pplx::task<size_t> _putn(const uint8_t* from, size_t count) override {
    const pplx::task_completion_event<size_t> taken;
    const auto resume = [taken, count](bool go_on) {
      if (go_on) {
        taken.set(count);
      } else {
        taken.set_exception(refused());
      }
    };
    switch (exchange_->put({reinterpret_cast<const char*>(from), count}, resume)) {
      case Exchange::Put::kTaken:
        return pplx::task_from_result(count);
      case Exchange::Put::kHeld:
        return pplx::create_task(taken);
      case Exchange::Put::kRefused:
        break;
    }
    return pplx::task_from_exception<size_t>(refused());
  }

 private:
  static std::exception_ptr refused() {
    return std::make_exception_ptr(std::runtime_error("the answer is larger than 64 MiB"));
  }

  const std::shared_ptr<Exchange> exchange_;
};

// What the library still has to do for requests, those given up too. Shared with them.
class UnderWay {
 public:
  void begin() {
    std::lock_guard lock(mutex_);
    ++count_;
  }
  void end() {
    std::lock_guard lock(mutex_);
    if (--count_ == 0) none_.notify_all();
  }
  bool wait_for_none(std::chrono::milliseconds most) {
    std::unique_lock lock(mutex_);
    return none_.wait_for(lock, most, [this] { return count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  size_t count_ = 0;
};

// A request under way.
struct Running {
  explicit Running(Exchange::Body body) : exchange(std::make_shared<Exchange>(body)) {}
  void abandon() {
    exchange->abandon();
    cancel.cancel();  // closes the connection
  }

  std::shared_ptr<Exchange> exchange;
  pplx::cancellation_token_source cancel;
};

absl::Status not_sent(absl::Status status) {
  status.SetPayload(kSentPayload, absl::Cord("1"));
  return status;
}

// The phases before anything is written, in the words of the library, which has no codes for them. Words that
// it does not know count as Unknown, so that a change in them can cost a read but never a second write.
constexpr std::string_view kCannotResolve = "Error resolving address";
constexpr std::string_view kHandshake = "Error in SSL handshake";

bool before_sending(std::string_view message) {
  static constexpr std::string_view kPhases[] = {kCannotResolve, "Failed to resolve address",
                                                 "Failed to connect to any resolved endpoint", kHandshake};
  for (const std::string_view phase : kPhases) {
    if (message == phase) return true;
  }
  return false;
}

// After an answer was cut off, the library may put the connection, which it has closed, back into its pool.
// The next request finds a descriptor that is closed already: not a byte of it can have been written.
bool on_closed_connection(const http::http_exception& error) {
  return std::string_view(error.what()) == "Failed to write request headers" &&
         error.error_code().value() == EBADF;
}

// What the library's number means: an errno value, or a packed OpenSSL error.
std::string reason_of(const http::http_exception& error) {
  if (std::string_view(error.what()) == kCannotResolve) return "no such host";
  const int code = error.error_code().value();
  if (const auto packed = static_cast<unsigned long>(code); ERR_GET_LIB(packed) == ERR_LIB_SSL) {
    if (const char* text = ERR_reason_error_string(packed)) return text;
  }
  // The library answers this for a refused connection as well.
  if (code == EHOSTUNREACH) return "connection refused or no route to the host";
  if (code <= 0 || code > 200) return "";
  char buffer[128];
  return strerror_r(code, buffer, sizeof buffer);
}

class CpprestClient : public HttpClient {
 public:
  CpprestClient(const http::uri& base, std::string origin, std::string host_header,
                std::shared_ptr<TlsSession> tls, const http::client::http_client_config& config)
      : origin_(std::move(origin)),
        host_header_(std::move(host_header)),
        tls_(std::move(tls)),
        client_(base, config) {}
  // What is queued in the library's pool when the process ends is never freed.
  ~CpprestClient() override { under_way_->wait_for_none(kLongestEnd); }

  absl::StatusOr<HttpResponse> send(const Context& context, const HttpRequest& request) override;
  absl::Status stream(const Context& context, const HttpRequest& request, std::chrono::milliseconds idle,
                      const std::function<absl::Status(const HttpResponse&)>& on_headers,
                      const std::function<absl::Status(std::string_view)>& on_chunk) override;

 private:
  using Time = std::chrono::steady_clock::time_point;

  absl::Status start(const HttpRequest& request, Running& running);
  // Starts, again on another connection when the pooled one is stale, and waits for the answer: whole, or its
  // head.
  absl::StatusOr<Running> begin(const Context& context, const HttpRequest& request, Exchange::Body body,
                                Time until);
  absl::Status failure(const std::exception_ptr& error, uint64_t refusals_before) const;
  absl::Status annotate_request(const absl::Status& status, const HttpRequest& request) const {
    return annotate(status, cat(request.method, " ", origin_, request.path));
  }

  const std::string origin_;
  const std::string host_header_;  // empty: what the library writes is right
  const std::shared_ptr<TlsSession> tls_;
  const std::shared_ptr<UnderWay> under_way_ = std::make_shared<UnderWay>();
  http::client::http_client client_;
};

// The steady clock's time at which the context ends: the context's own clock may be a test's.
std::chrono::steady_clock::time_point end_of(const Context& context) {
  const auto now = std::chrono::steady_clock::now();
  const auto remaining = context.remaining();
  return remaining > std::chrono::hours(24 * 365) ? std::chrono::steady_clock::time_point::max()
                                                  : now + remaining;
}

HttpResponse head_of(const http::http_response& response) {
  HttpResponse head;
  head.status = response.status_code();
  for (const auto& [name, value] : response.headers()) head.headers[absl::AsciiStrToLower(name)] = value;
  return head;
}

absl::StatusOr<http::http_request> library_request(const HttpRequest& request) {
  http::http_request made(request.method);
  try {
    made.set_request_uri(http::uri(request.path));
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(cat("bad path: ", error.what()));
  }
  for (const auto& [name, value] : request.headers) {
    if (cat(name, value).find_first_of("\r\n") != std::string::npos) {
      return absl::InvalidArgumentError(cat("a line break in header ", name));
    }
    made.headers().add(name, value);
  }
  if (!request.bearer_token.empty()) {
    const std::string token(absl::StripAsciiWhitespace(request.bearer_token.reveal()));
    if (token.find_first_of("\r\n") != std::string::npos) {
      return absl::InvalidArgumentError("a line break in the bearer token");
    }
    made.headers().add("Authorization", cat("Bearer ", token));
  }
  return made;
}

absl::Status CpprestClient::start(const HttpRequest& request, Running& running) {
  COLLAGE_ASSIGN_OR_RETURN(http::http_request made, library_request(request));
  if (!host_header_.empty()) made.headers().add("Host", host_header_);
  // The library resends a request by itself when the server closes a reused connection before it answers,
  // unless there is a body that cannot be rewound. So whatever may write carries a body, though an empty one:
  // it fails, as Unknown.
  if (request.method != "GET" && request.method != "HEAD") {
    const std::shared_ptr<streams::details::basic_streambuf<uint8_t>> source =
        std::make_shared<Source>(request.body);
    made.set_body(streams::istream(streams::streambuf<uint8_t>(source)), request.body.size(),
                  "application/json");
  }
  const std::shared_ptr<Exchange> x = running.exchange;
  const std::shared_ptr<streams::details::basic_streambuf<uint8_t>> sink = std::make_shared<Sink>(x);
  made.set_response_stream(streams::ostream(streams::streambuf<uint8_t>(sink)));
  // Ended when the library has let go of the last function that holds it.
  under_way_->begin();
  const std::shared_ptr<void> held(nullptr, [under_way = under_way_](void*) { under_way->end(); });
  // Every task's outcome is looked at: the library ends the process over an exception that nobody saw.
  client_.request(made, running.cancel.get_token())
      .then([x, held](const pplx::task<http::http_response>& headers) {
        try {
          http::http_response response = headers.get();
          x->set_head(head_of(response));
          response.content_ready().then([x, held](const pplx::task<http::http_response>& end) {
            try {
              end.get();
              x->finish(nullptr);
            } catch (...) {
              x->finish(std::current_exception());
            }
          });
        } catch (...) {
          x->finish(std::current_exception());
        }
      });
  return absl::OkStatus();
}

absl::Status CpprestClient::failure(const std::exception_ptr& error, uint64_t refusals_before) const {
  try {
    std::rethrow_exception(error);
  } catch (const http::http_exception& exception) {
    const std::string_view message = exception.what();
    if (tls_ && message == kHandshake && tls_->refusals() > refusals_before) {
      return not_sent(absl::UnauthenticatedError(tls_->refusal()));
    }
    const std::string reason = reason_of(exception);
    const absl::Status status =
        absl::UnavailableError(reason.empty() ? cat(message) : cat(message, ": ", reason));
    return before_sending(message) || on_closed_connection(exception) ? not_sent(status) : status;
  } catch (const std::exception& exception) {
    return absl::UnavailableError(exception.what());
  } catch (...) {
    return absl::UnavailableError("unknown error");
  }
}

bool is_stale(const std::exception_ptr& error) {
  if (!error) return false;
  try {
    std::rethrow_exception(error);
  } catch (const StaleConnection&) {
    return true;
  } catch (...) {
    return false;
  }
}

absl::StatusOr<Running> CpprestClient::begin(const Context& context, const HttpRequest& request,
                                             Exchange::Body body, Time until) {
  for (int attempt = 0; attempt < kMaxStaleConnections; ++attempt) {
    if (absl::Status status = context.status(); !status.ok()) return not_sent(status);
    const uint64_t refusals = tls_ ? tls_->refusals() : 0;
    Running running(body);
    try {
      if (absl::Status status = start(request, running); !status.ok()) return not_sent(status);
    } catch (const std::exception& error) {
      return not_sent(absl::UnavailableError(error.what()));
    }
    switch (running.exchange->wait_for_answer(context, until)) {
      case Exchange::Event::kAnswer:
        return running;
      case Exchange::Event::kFailed: {
        const std::exception_ptr error = running.exchange->error();
        if (is_stale(error)) continue;
        return failure(error, refusals);
      }
      case Exchange::Event::kTime:
        running.abandon();
        return absl::DeadlineExceededError("no answer in time");
      case Exchange::Event::kStopped:
        running.abandon();
        return absl::CancelledError("stopped");
    }
  }
  return not_sent(absl::UnavailableError("every pooled connection is stale"));
}

absl::StatusOr<HttpResponse> CpprestClient::send(const Context& context, const HttpRequest& request) {
  const auto running = begin(context, request, Exchange::Body::kWhole, end_of(context));
  if (!running.ok()) return annotate_request(running.status(), request);
  return running->exchange->take_answer();
}

absl::Status CpprestClient::stream(const Context& context, const HttpRequest& request,
                                   std::chrono::milliseconds idle,
                                   const std::function<absl::Status(const HttpResponse&)>& on_headers,
                                   const std::function<absl::Status(std::string_view)>& on_chunk) {
  const Time end = end_of(context);
  const auto next = [&] { return std::min(end, std::chrono::steady_clock::now() + idle); };
  auto running = begin(context, request, Exchange::Body::kPieces, next());
  if (!running.ok()) return annotate_request(running.status(), request);
  // After the normal end as well, when it is only tidy.
  const absl::Cleanup abandon = [&] { running->abandon(); };
  Exchange& x = *running->exchange;
  COLLAGE_RETURN_IF_ERROR(on_headers(x.take_answer()));
  std::deque<std::string> pieces;
  while (true) {
    const Time until = next();
    switch (x.wait_for_pieces(context, until, &pieces)) {
      case Exchange::Event::kAnswer:
        break;
      case Exchange::Event::kFailed:
        return annotate_request(failure(x.error(), UINT64_MAX), request);
      case Exchange::Event::kStopped:
        return annotate_request(absl::CancelledError("stopped"), request);
      case Exchange::Event::kTime:
        return annotate_request(
            absl::DeadlineExceededError(until == end ? std::string("the deadline has passed")
                                                     : cat("nothing received for ", idle.count(), " ms")),
            request);
    }
    if (pieces.empty()) return absl::OkStatus();
    for (const std::string& piece : pieces) {
      if (absl::Status status = context.status(); !status.ok()) return annotate_request(status, request);
      COLLAGE_RETURN_IF_ERROR(on_chunk(piece));
    }
  }
}

// True when an idle connection has anything to say: it was closed, or will be.
bool readable(int fd) {
  pollfd state{fd, POLLIN | POLLRDHUP, 0};
  return poll(&state, 1, 0) != 0;
}

// Called by the library with the connection of each request, new (not connected yet) or pooled, before it is
// used.
void check_plain(http::client::native_handle handle) {
  auto& socket = *static_cast<boost::asio::ip::tcp::socket*>(handle);
  if (socket.is_open() && readable(socket.native_handle())) throw StaleConnection();
}

void check_tls(http::client::native_handle handle, const TlsSession& tls) {
  auto& stream = *static_cast<boost::asio::ssl::stream<boost::asio::ip::tcp::socket&>*>(handle);
  if (stream.next_layer().is_open()) {
    if (readable(stream.next_layer().native_handle())) throw StaleConnection();
    return;
  }
  if (!tls.sni().empty()) SSL_set_tlsext_host_name(stream.native_handle(), tls.sni().c_str());
}

}  // namespace

Sent sent_of(const absl::Status& status) {
  return status.GetPayload(kSentPayload).has_value() ? Sent::kNotSent : Sent::kUnknown;
}

absl::StatusOr<std::unique_ptr<HttpClient>> make_http_client(const std::string& base_url,
                                                             const TlsConfig& tls) {
  try {
    http::uri base(base_url);
    if ((base.scheme() != "https" && base.scheme() != "http") || base.host().empty()) {
      return absl::InvalidArgumentError(cat("\"", base_url, "\" is not a URL such as https://10.96.0.1:443"));
    }
    // The library hands an IPv6 address to the resolver with its brackets on, which never works: it gets the
    // bare address, and the Host header is ours.
    std::string host = base.host(), host_header;
    if (host.starts_with('[') && host.ends_with(']')) {
      host = host.substr(1, host.size() - 2);
      const int port = base.port() > 0 ? base.port() : (base.scheme() == "https" ? 443 : 80);
      host_header = cat("[", host, "]:", port);
      base = http::uri_builder(base).set_host(host).set_port(port).to_uri();
    }
    http::client::http_client_config config;
    config.set_timeout(
        std::chrono::hours(24 * 365));  // per read; callers' deadlines and idle limits are kept here instead
    config.set_max_redirects(0);
    config.set_tlsext_sni_enabled(false);  // set by check_tls: the library would send an IP address
    std::shared_ptr<TlsSession> session;
    if (base.scheme() == "https") {
      COLLAGE_ASSIGN_OR_RETURN(session, TlsSession::create(host, tls));
      config.set_validate_certificates(!tls.skip_verify);
      config.set_ssl_context_callback([session](boost::asio::ssl::context& context) {
        if (!session->apply(context.native_handle())) throw std::runtime_error("cannot set up TLS");
      });
      config.set_nativehandle_options([session](auto handle) { check_tls(handle, *session); });
    } else {
      config.set_nativehandle_options(check_plain);
    }
    return std::make_unique<CpprestClient>(base, std::string(absl::StripSuffix(base_url, "/")),
                                           std::move(host_header), std::move(session), config);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(cat("\"", base_url, "\" is not a URL: ", error.what()));
  }
}

std::string url_encode(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string encoded;
  encoded.reserve(text.size());
  for (const char c : text) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' || c == '_' || c == '~') {
      encoded += c;
      continue;
    }
    encoded += '%';
    encoded += kDigits[static_cast<unsigned char>(c) >> 4];
    encoded += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return encoded;
}

void init_http_client(int threads) {
  TlsSession::hide_system_roots_from_library();
  try {
    crossplat::threadpool::initialize_with_threads(static_cast<size_t>(threads));
  } catch (const std::exception&) {
    // Already started, by a request: it keeps the size that it has.
  }
}

}  // namespace collage::base
