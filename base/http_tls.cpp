#include "base/http_tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <cstdlib>

#include "absl/cleanup/cleanup.h"
#include "base/strings.h"

namespace collage::base {
namespace {

struct BioFree {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using BioPtr = std::unique_ptr<BIO, BioFree>;

// Reads from, and does not copy, `pem`.
BioPtr bio_of(const std::string& pem) {
  return BioPtr(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// Keys come in files and Secrets; a passphrase prompt on the terminal would hang the process.
int no_passphrase(char*, int, int, void*) {
  return 0;
}

// The system's file of roots.
std::string& roots_file() {
  static auto* const file = new std::string([] {
    const char* named = getenv(X509_get_default_cert_file_env());
    return std::string(named != nullptr ? named : X509_get_default_cert_file());
  }());
  return *file;
}

bool is_address(const std::string& host) {
  unsigned char bytes[16];
  return inet_pton(AF_INET, host.c_str(), bytes) == 1 || inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

std::string line_of(X509_NAME* name) {
  BioPtr out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253);
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

}  // namespace

absl::StatusOr<std::shared_ptr<TlsSession>> TlsSession::create(const std::string& host,
                                                               const TlsConfig& config) {
  std::shared_ptr<TlsSession> session(new TlsSession);
  session->name_ = config.server_name.empty() ? host : config.server_name;
  session->name_is_address_ = is_address(session->name_);
  if (!session->name_is_address_) session->sni_ = session->name_;
  session->skip_verify_ = config.skip_verify;
  absl::Cleanup forget_errors = [] { ERR_clear_error(); };
  if (absl::Status status = session->load_roots(config.ca_pem); !status.ok()) return status;
  if (absl::Status status = session->load_identity(config); !status.ok()) return status;
  return session;
}

void TlsSession::hide_system_roots_from_library() {
  roots_file();
  setenv(X509_get_default_cert_file_env(), "/dev/null", 1);
}

TlsSession::~TlsSession() {
  X509_STORE_free(roots_);
  X509_free(certificate_);
  EVP_PKEY_free(key_);
  sk_X509_pop_free(chain_, X509_free);
}

absl::Status TlsSession::load_roots(const std::string& pem) {
  roots_ = X509_STORE_new();
  if (roots_ == nullptr) return absl::InternalError("cannot make a certificate store");
  if (pem.empty()) {
    X509_STORE_set_default_paths(roots_);  // the directory
    X509_STORE_load_file(roots_, roots_file().c_str());
    return absl::OkStatus();
  }
  const BioPtr bio = bio_of(pem);
  int count = 0;
  while (X509* root = PEM_read_bio_X509_AUX(bio.get(), nullptr, no_passphrase, nullptr)) {
    X509_STORE_add_cert(roots_, root);
    X509_free(root);
    ++count;
  }
  if (count == 0) return absl::InvalidArgumentError("the CA is not a PEM certificate");
  return absl::OkStatus();
}

absl::Status TlsSession::load_identity(const TlsConfig& config) {
  if (config.client_certificate_pem.empty() && config.client_key_pem.empty()) return absl::OkStatus();
  const BioPtr bio = bio_of(config.client_certificate_pem);
  certificate_ = PEM_read_bio_X509(bio.get(), nullptr, no_passphrase, nullptr);
  if (certificate_ == nullptr)
    return absl::InvalidArgumentError("the client certificate is not a PEM certificate");
  chain_ = sk_X509_new_null();
  while (X509* link = PEM_read_bio_X509(bio.get(), nullptr, no_passphrase, nullptr))
    sk_X509_push(chain_, link);
  const BioPtr key = bio_of(config.client_key_pem.reveal());
  key_ = PEM_read_bio_PrivateKey(key.get(), nullptr, no_passphrase, nullptr);
  if (key_ == nullptr) {
    return absl::InvalidArgumentError("the client key is not a PEM private key without passphrase");
  }
  if (X509_check_private_key(certificate_, key_) != 1) {
    return absl::InvalidArgumentError("the client key does not belong to the client certificate");
  }
  return absl::OkStatus();
}

bool TlsSession::apply(SSL_CTX* context) {
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  X509_STORE_up_ref(roots_);
  SSL_CTX_set_cert_store(context, roots_);  // instead of the store with the system's roots
  SSL_CTX_set_cert_verify_callback(context, &TlsSession::verify_callback, this);
  if (certificate_ == nullptr) return true;
  if (SSL_CTX_use_certificate(context, certificate_) != 1 || SSL_CTX_use_PrivateKey(context, key_) != 1) {
    return false;
  }
  return SSL_CTX_set1_chain(context, chain_) == 1;
}

int TlsSession::verify_callback(X509_STORE_CTX* chain, void* session) {
  return static_cast<TlsSession*>(session)->verify(chain) ? 1 : 0;
}

bool TlsSession::verify(X509_STORE_CTX* chain) {
  if (skip_verify_) return true;
  X509_VERIFY_PARAM* wanted = X509_STORE_CTX_get0_param(chain);
  const bool set = name_is_address_ ? X509_VERIFY_PARAM_set1_ip_asc(wanted, name_.c_str()) == 1
                                    : X509_VERIFY_PARAM_set1_host(wanted, name_.data(), name_.size()) == 1;
  // The connection's own callback would check the name of the URL again, where server_name was to replace it.
  X509_STORE_CTX_set_verify_cb(chain, [](int ok, X509_STORE_CTX*) { return ok; });
  if (set && X509_verify_cert(chain) == 1) return true;

  const int error = X509_STORE_CTX_get_error(chain);
  std::string reason = cat("the server's certificate is refused: ", X509_verify_cert_error_string(error));
  if (X509* leaf = X509_STORE_CTX_get0_cert(chain)) {
    reason += cat(" (subject ", line_of(X509_get_subject_name(leaf)), ", issuer ",
                  line_of(X509_get_issuer_name(leaf)), ", asked for ", name_, ")");
  }
  std::lock_guard lock(mutex_);
  ++refusals_;
  refusal_ = std::move(reason);
  return false;
}

uint64_t TlsSession::refusals() const {
  std::lock_guard lock(mutex_);
  return refusals_;
}

std::string TlsSession::refusal() const {
  std::lock_guard lock(mutex_);
  return refusal_;
}

}  // namespace collage::base
