#include "unit/testing/test_tls.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace collage::testing {
namespace {

void must(bool ok, const char* what) {
  if (ok) return;
  fprintf(stderr, "test certificates: %s failed\n", what);
  abort();
}

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string text(data, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

std::string pem_of(X509* certificate) {
  BIO* bio = BIO_new(BIO_s_mem());
  must(PEM_write_bio_X509(bio, certificate) == 1, "PEM_write_bio_X509");
  return text_of(bio);
}

std::string pem_of(EVP_PKEY* key) {
  BIO* bio = BIO_new(BIO_s_mem());
  must(PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr) == 1,
       "PEM_write_bio_PrivateKey");
  return text_of(bio);
}

void add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  must(extension != nullptr, "X509V3_EXT_conf_nid");
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

// An unsigned certificate of version 3 with subject and validity.
X509* blank(const std::string& common_name, EVP_PKEY* key, int valid_days) {
  static std::atomic<long> serial{1};
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial++);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -10L * 24 * 3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 24L * 3600 * valid_days);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(common_name.c_str()), -1, -1, 0);
  X509_set_pubkey(certificate, key);
  return certificate;
}

}  // namespace

struct TestCa::Impl {
  EVP_PKEY* key = nullptr;
  X509* certificate = nullptr;
};

TestCa::TestCa(const std::string& name) : impl_(new Impl) {
  impl_->key = EVP_EC_gen("P-256");
  must(impl_->key != nullptr, "EVP_EC_gen");
  impl_->certificate = blank(name, impl_->key, 1);
  X509_set_issuer_name(impl_->certificate, X509_get_subject_name(impl_->certificate));
  add_extension(impl_->certificate, impl_->certificate, NID_basic_constraints, "critical,CA:TRUE");
  add_extension(impl_->certificate, impl_->certificate, NID_subject_key_identifier, "hash");
  must(X509_sign(impl_->certificate, impl_->key, EVP_sha256()) > 0, "X509_sign");
  pem_ = pem_of(impl_->certificate);
}

TestCa::~TestCa() {
  X509_free(impl_->certificate);
  EVP_PKEY_free(impl_->key);
}

Identity TestCa::issue(const std::string& common_name, const std::vector<std::string>& alternative_names,
                       int valid_days) const {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  must(key != nullptr, "EVP_EC_gen");
  X509* certificate = blank(common_name, key, valid_days);
  X509_set_issuer_name(certificate, X509_get_subject_name(impl_->certificate));
  std::string names;
  for (const std::string& name : alternative_names) names += (names.empty() ? "" : ",") + name;
  if (!names.empty()) add_extension(certificate, impl_->certificate, NID_subject_alt_name, names);
  must(X509_sign(certificate, impl_->key, EVP_sha256()) > 0, "X509_sign");
  Identity identity{pem_of(certificate), pem_of(key)};
  X509_free(certificate);
  EVP_PKEY_free(key);
  return identity;
}

}  // namespace collage::testing
