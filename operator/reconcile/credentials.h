#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/context.h"
#include "base/secret.h"
#include "operator/kube/client.h"

// The Secrets that backends name in spec.credentialsSecret: read one at a time, by name, never listed.
namespace collage::reconcile {

// The Secret's data, decoded: all of its keys, `keys` among them and not empty. Messages name the Secret, the
// key and the remedy, never a value.
//   NOT_FOUND, PERMISSION_DENIED  there is none, or it may not be read: a person's to mend
//   INVALID_ARGUMENT              a key is missing, empty, or not base64
//   other codes                   the API server's trouble: nothing is known
absl::StatusOr<base::Secrets> read_credentials(const base::Context& context, kube::Client& client,
                                               const kube::Key& secret, const std::vector<std::string>& keys);

// True for what read_credentials() says about the Secret itself, not about the way to it.
bool is_about_the_secret(const absl::Status& status);

// Tells when one of a few Secrets changes: a watch each, by name (a field selector), in one namespace. Where
// the right to watch is not given, changes are found by the reconcile that reads the Secret again every
// minute. Thread safe.
class SecretWatches {
 public:
  // `changed` is called on a thread of the watch: at its beginning, after each change, and whenever a broken
  // watch is up again, since something may have been missed.
  SecretWatches(kube::Client& client, std::string name_space,
                std::function<void(const std::string& secret)> changed);
  ~SecretWatches();

  // `user` (a backend) depends on this Secret now, on no other; "": on none.
  void use(const base::Context& context, const std::string& user, const std::string& secret);
  std::vector<std::string> users(const std::string& secret) const;
  void stop();

 private:
  void run(const base::Context& context, const std::string& secret);

  kube::Client& client_;
  const std::string name_space_;
  const std::function<void(const std::string&)> changed_;
  mutable std::mutex mutex_;
  std::map<std::string, std::string> used_;      // user -> Secret
  std::map<std::string, std::jthread> watches_;  // Secret -> its watch
  bool stopped_ = false;
};

}  // namespace collage::reconcile
