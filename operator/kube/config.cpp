#include "operator/kube/config.h"

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_split.h"
#include "base/files.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/yaml.h"

namespace collage::kube {
namespace {

using base::Json;

// One file of a kubeconfig; paths inside it are relative to its directory.
struct ConfigFile {
  std::string path;
  Json json;
};

// What "name: x" of a list "clusters", "users" or "contexts" holds, and the file it is from.
struct Named {
  const ConfigFile* file = nullptr;
  const Json* entry = nullptr;
};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string beside(const std::string& file, const std::string& path) {
  if (path.empty() || path.front() == '/') return path;
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? path : file.substr(0, slash + 1) + path;
}

absl::StatusOr<std::vector<ConfigFile>> read_files(const std::string& path_list) {
  std::vector<ConfigFile> files;
  absl::Status missing;
  for (const std::string& path :
       std::vector<std::string>(absl::StrSplit(path_list, ':', absl::SkipEmpty()))) {
    const auto text = base::read_file(path);
    if (!text.ok()) {
      missing = base::annotate(text.status(), "kubeconfig");
      continue;
    }
    auto documents = base::yaml_to_json(*text);
    if (!documents.ok()) return base::annotate(documents.status(), "kubeconfig " + path);
    if (documents->size() != 1 || !documents->front().is_object()) {
      return absl::InvalidArgumentError("kubeconfig " + path + ": must be one YAML document, an object");
    }
    files.push_back({path, std::move(documents->front())});
  }
  // As kubectl does: files of a list that are missing are left out, unless none is there.
  if (files.empty()) return missing.ok() ? absl::NotFoundError("kubeconfig: no file is named") : missing;
  return files;
}

absl::StatusOr<Named> find_named(const std::vector<ConfigFile>& files, const char* list, const char* singular,
                                 const std::string& name) {
  for (const ConfigFile& file : files) {
    const Json* entries = base::find(file.json, base::cat("/", list));
    if (entries == nullptr || !entries->is_array()) continue;
    for (const Json& entry : *entries) {
      if (base::get_string(entry, "/name") != name) continue;
      const Json* content = base::find(entry, base::cat("/", singular));
      if (content != nullptr && content->is_object()) return Named{&file, content};
    }
  }
  return absl::NotFoundError(
      base::cat("kubeconfig ", files.front().path, ": no entry \"", name, "\" in ", list));
}

// The inline, base64 form "<field>-data", else the content of the file that "<field>" names; "" when there is
// neither.
absl::StatusOr<std::string> data_or_file(const Named& from, const std::string& field) {
  const std::string data = base::get_string(*from.entry, "/" + field + "-data");
  if (!data.empty()) {
    std::string decoded;
    if (!absl::Base64Unescape(data, &decoded)) {
      return absl::InvalidArgumentError(
          base::cat("kubeconfig ", from.file->path, ": ", field, "-data is not base64"));
    }
    return decoded;
  }
  const std::string path = beside(from.file->path, base::get_string(*from.entry, "/" + field));
  if (path.empty()) return "";
  auto content = base::read_file(path);
  if (!content.ok())
    return base::annotate(content.status(), base::cat("kubeconfig ", from.file->path, ": ", field));
  return content;
}

// NOT_SUPPORTED fields change who we are or whom we speak to: to leave one out in silence would be wrong.
absl::Status refuse(const Named& from, std::initializer_list<const char*> fields) {
  for (const char* field : fields) {
    const Json* value = base::find(*from.entry, base::cat("/", field));
    if (value == nullptr || value->is_null() || *value == "") continue;
    return absl::UnimplementedError(
        base::cat("kubeconfig ", from.file->path, ": ", field,
                  " is not supported; use a client certificate, token or tokenFile"));
  }
  return absl::OkStatus();
}

absl::Status read_cluster(const Named& cluster, ClientConfig& config) {
  COLLAGE_RETURN_IF_ERROR(refuse(cluster, {"proxy-url"}));
  config.server = base::get_string(*cluster.entry, "/server");
  if (config.server.empty()) {
    return absl::InvalidArgumentError("kubeconfig " + cluster.file->path + ": the cluster has no server");
  }
  COLLAGE_ASSIGN_OR_RETURN(config.tls.ca_pem, data_or_file(cluster, "certificate-authority"));
  config.tls.skip_verify = base::get_bool(*cluster.entry, "/insecure-skip-tls-verify");
  config.tls.server_name = base::get_string(*cluster.entry, "/tls-server-name");
  return absl::OkStatus();
}

absl::Status read_user(const Named& user, ClientConfig& config) {
  COLLAGE_RETURN_IF_ERROR(
      refuse(user, {"exec", "auth-provider", "username", "password", "as", "as-uid", "as-groups"}));
  COLLAGE_ASSIGN_OR_RETURN(config.tls.client_certificate_pem, data_or_file(user, "client-certificate"));
  std::string key;
  COLLAGE_ASSIGN_OR_RETURN(key, data_or_file(user, "client-key"));
  config.tls.client_key_pem = base::Secret(std::move(key));
  if (config.tls.client_certificate_pem.empty() != config.tls.client_key_pem.empty()) {
    return absl::InvalidArgumentError("kubeconfig " + user.file->path +
                                      ": client-certificate and client-key go together");
  }
  config.token = base::Secret(base::get_string(*user.entry, "/token"));
  config.token_file = beside(user.file->path, base::get_string(*user.entry, "/tokenFile"));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ClientConfig> in_cluster_config(const std::string& account_directory) {
  const std::string host = environment("KUBERNETES_SERVICE_HOST");
  const std::string port = environment("KUBERNETES_SERVICE_PORT");
  if (host.empty() || port.empty()) {
    return absl::FailedPreconditionError(
        "not in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set");
  }
  ClientConfig config;
  const bool ipv6 = host.find(':') != std::string::npos && host.front() != '[';
  config.server = base::cat("https://", ipv6 ? "[" : "", host, ipv6 ? "]" : "", ":", port);
  auto ca = base::read_file(account_directory + "/ca.crt");
  if (!ca.ok()) return base::annotate(ca.status(), "service account");
  config.tls.ca_pem = std::move(*ca);
  config.token_file = account_directory + "/token";
  const auto token = base::read_file(config.token_file);
  if (!token.ok()) return base::annotate(token.status(), "service account");
  config.token = base::Secret(std::string(absl::StripAsciiWhitespace(*token)));
  const auto name_space = base::read_file(account_directory + "/namespace");
  config.name_space = name_space.ok() ? std::string(absl::StripAsciiWhitespace(*name_space)) : "default";
  return config;
}

absl::StatusOr<ClientConfig> load_kubeconfig(const std::string& path, const std::string& context) {
  std::vector<ConfigFile> files;
  COLLAGE_ASSIGN_OR_RETURN(files, read_files(path));
  std::string name = context;
  for (const ConfigFile& file : files) {
    if (name.empty()) name = base::get_string(file.json, "/current-context");
  }
  if (name.empty())
    return absl::InvalidArgumentError("kubeconfig " + path + ": no current-context; name one");
  Named chosen, cluster, user;
  COLLAGE_ASSIGN_OR_RETURN(chosen, find_named(files, "contexts", "context", name));
  COLLAGE_ASSIGN_OR_RETURN(
      cluster, find_named(files, "clusters", "cluster", base::get_string(*chosen.entry, "/cluster")));
  ClientConfig config;
  COLLAGE_RETURN_IF_ERROR(read_cluster(cluster, config));
  if (const std::string user_name = base::get_string(*chosen.entry, "/user"); !user_name.empty()) {
    COLLAGE_ASSIGN_OR_RETURN(user, find_named(files, "users", "user", user_name));
    COLLAGE_RETURN_IF_ERROR(read_user(user, config));
  }
  config.name_space = base::get_string(*chosen.entry, "/namespace", "default");
  return config;
}

absl::StatusOr<ClientConfig> find_config(const std::string& kubeconfig, const std::string& context) {
  if (!kubeconfig.empty()) return load_kubeconfig(kubeconfig, context);
  if (context.empty() && !environment("KUBERNETES_SERVICE_HOST").empty()) return in_cluster_config();
  if (const std::string files = environment("KUBECONFIG"); !files.empty())
    return load_kubeconfig(files, context);
  if (const std::string home = environment("HOME"); !home.empty() && base::exists(home + "/.kube/config")) {
    return load_kubeconfig(home + "/.kube/config", context);
  }
  return absl::FailedPreconditionError(
      "no API server is known: not in a pod, and neither --kubeconfig, $KUBECONFIG nor ~/.kube/config names "
      "one");
}

}  // namespace collage::kube
