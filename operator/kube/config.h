#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/http_client.h"

namespace collage::kube {

// Where the API server is and who we are.
struct ClientConfig {
  std::string server;  // "https://10.96.0.1:443"
  base::TlsConfig tls;
  base::Secret token;
  std::string token_file;  // read again when it changes on disk, at most once a second, and after a 401
  std::string name_space;  // of the pod or the kubeconfig's context; "default" otherwise
};

// From KUBERNETES_SERVICE_HOST/_PORT and /var/run/secrets/kubernetes.io/serviceaccount. FAILED_PRECONDITION
// outside a pod.
absl::StatusOr<ClientConfig> in_cluster_config(
    const std::string& account_directory = "/var/run/secrets/kubernetes.io/serviceaccount");
// A kubeconfig file: clusters, contexts, users with client certificates (files or inline) or tokens (inline
// or tokenFile). context "": current-context. What is not supported (exec, auth-provider) is UNIMPLEMENTED
// and named.
absl::StatusOr<ClientConfig> load_kubeconfig(const std::string& path, const std::string& context);
// kubeconfig when given, else in-cluster, else $KUBECONFIG, else ~/.kube/config.
absl::StatusOr<ClientConfig> find_config(const std::string& kubeconfig, const std::string& context);

}  // namespace collage::kube
