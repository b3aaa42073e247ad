#pragma once

#include <memory>
#include <string>
#include <vector>

namespace collage::testing {

struct Identity {
  std::string certificate_pem;
  std::string key_pem;
};

// A certificate authority for tests: EC keys, made in a millisecond.
class TestCa {
 public:
  explicit TestCa(const std::string& name = "collage test CA");
  ~TestCa();
  TestCa(const TestCa&) = delete;

  const std::string& pem() const { return pem_; }
  // A certificate of this CA for a server or client. Alternative names in OpenSSL's words: "IP:127.0.0.1",
  // "DNS:localhost". valid_days may be negative: expired.
  Identity issue(const std::string& common_name, const std::vector<std::string>& alternative_names = {},
                 int valid_days = 1) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  std::string pem_;
};

}  // namespace collage::testing
