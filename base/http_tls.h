#pragma once

#include <openssl/types.h>
#include <openssl/x509.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "base/http_client.h"

// The TLS half of the HTTP client; not for use outside base/.
namespace collage::base {

// One client's parsed certificates and its own verification of the server: the chain up to `ca_pem` and the
// name or IP address among the certificate's alternative names. Thread safe.
class TlsSession {
 public:
  // host: what the URL names, an IP address or a DNS name. INVALID_ARGUMENT on a bad PEM or a key of another
  // certificate.
  static absl::StatusOr<std::shared_ptr<TlsSession>> create(const std::string& host, const TlsConfig& config);
  ~TlsSession();

  // The library reads the system's file of roots (SSL_CERT_FILE) anew for each connection, 35 ms where it is
  // the usual bundle, and we replace them anyway: points it at an empty file, and remembers the true one for
  // configurations without a CA. Changes the environment: call before any thread starts.
  static void hide_system_roots_from_library();

  // Sets up one connection's context; it keeps pointers into this session, which must outlive the connection.
  // False when OpenSSL refuses, which only lack of memory explains.
  bool apply(SSL_CTX* context);
  // The name to ask for in the handshake (SNI); empty when the host is an IP address, which RFC 6066 does not
  // allow there.
  const std::string& sni() const { return sni_; }

  // Counts the certificates refused so far; a failed handshake is explained by refusal() when the count has
  // grown.
  uint64_t refusals() const;
  std::string refusal() const;

 private:
  TlsSession() = default;
  absl::Status load_roots(const std::string& pem);
  absl::Status load_identity(const TlsConfig& config);
  bool verify(X509_STORE_CTX* chain);
  static int verify_callback(X509_STORE_CTX* chain, void* session);

  std::string name_;
  std::string sni_;
  bool name_is_address_ = false;
  bool skip_verify_ = false;
  X509_STORE* roots_ = nullptr;
  X509* certificate_ = nullptr;
  EVP_PKEY* key_ = nullptr;
  STACK_OF(X509) * chain_ = nullptr;

  mutable std::mutex mutex_;
  uint64_t refusals_ = 0;
  std::string refusal_;
};

}  // namespace collage::base
