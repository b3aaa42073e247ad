#include "operator/kube/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/escaping.h"
#include "unit/testing/temp_dir.h"

namespace collage::kube {
namespace {

using ::testing::HasSubstr;
using testing::TempDir;

// An environment variable for one test.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    value == nullptr ? unsetenv(name) : setenv(name, value, 1);
  }
  ~Variable() { old_.empty() ? unsetenv(name_) : setenv(name_, old_.c_str(), 1); }

 private:
  const char* name_;
  std::string old_;
};

void write(const std::string& path, const std::string& content) {
  std::ofstream(path) << content;
}

constexpr char kContexts[] = R"(
current-context: main
contexts:
- {name: main, context: {cluster: c, user: u, namespace: team}}
- {name: second, context: {cluster: d, user: u}}
- {name: no-user, context: {cluster: c}}
- {name: bad-cluster, context: {cluster: missing, user: u}}
- {name: bad-user, context: {cluster: c, user: missing}}
clusters:
- {name: c, cluster: {server: "https://10.0.0.1:6443", certificate-authority: ca.pem, tls-server-name: kube}}
- {name: d, cluster: {server: "https://10.0.0.2:6443", insecure-skip-tls-verify: true}}
users:
- name: u
  user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}
)";

TEST(Kubeconfig, ReadsClustersUsersAndContexts) {
  TempDir directory;
  write(directory / "config", kContexts);
  write(directory / "ca.pem", "THE CA");
  const auto config = load_kubeconfig(directory / "config", "");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->server, "https://10.0.0.1:6443");
  EXPECT_EQ(config->tls.ca_pem, "THE CA") << "relative to the file";
  EXPECT_EQ(config->tls.server_name, "kube");
  EXPECT_FALSE(config->tls.skip_verify);
  EXPECT_EQ(config->tls.client_certificate_pem, "CERT");
  EXPECT_EQ(config->tls.client_key_pem.reveal(), "KEY");
  EXPECT_EQ(config->name_space, "team");

  const auto second = load_kubeconfig(directory / "config", "second");
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->server, "https://10.0.0.2:6443");
  EXPECT_TRUE(second->tls.skip_verify);
  EXPECT_EQ(second->name_space, "default");
  EXPECT_TRUE(load_kubeconfig(directory / "config", "no-user").ok());
}

TEST(Kubeconfig, Tokens) {
  TempDir directory;
  const std::string head =
      "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
      "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n";
  write(directory / "inline", head + "users: [{name: u, user: {token: abc}}]\n");
  EXPECT_EQ(load_kubeconfig(directory / "inline", "")->token.reveal(), "abc");
  write(directory / "file", head + "users: [{name: u, user: {tokenFile: tokens/mine}}]\n");
  EXPECT_EQ(load_kubeconfig(directory / "file", "")->token_file, directory / "tokens/mine");
}

TEST(Kubeconfig, BadOnesNameTheFileAndTheField) {
  TempDir directory;
  write(directory / "ca.pem", "CA");
  const std::string head = "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n";
  const std::string cluster = "clusters: [{name: c, cluster: {server: 'https://h'}}]\n";
  struct Case {
    std::string_view name;
    std::string text;
    absl::StatusCode code;
    std::string_view message;
  };
  const Case cases[] = {
      {"empty", "", absl::StatusCode::kInvalidArgument, "one YAML document"},
      {"a list", "[1, 2]", absl::StatusCode::kInvalidArgument, "one YAML document"},
      {"not YAML", "a: [", absl::StatusCode::kInvalidArgument, "line"},
      {"no context", "clusters: []", absl::StatusCode::kInvalidArgument, "current-context"},
      {"context missing", "current-context: y", absl::StatusCode::kNotFound, "\"y\" in contexts"},
      {"cluster missing", head, absl::StatusCode::kNotFound, "\"c\" in clusters"},
      {"user missing", head + cluster, absl::StatusCode::kNotFound, "\"u\" in users"},
      {"wrong types", "current-context: x\ncontexts: {name: x}\n", absl::StatusCode::kNotFound,
       "\"x\" in contexts"},
      {"no server", head + "clusters: [{name: c, cluster: {}}]\nusers: [{name: u, user: {}}]",
       absl::StatusCode::kInvalidArgument, "no server"},
      {"a proxy", head + "clusters: [{name: c, cluster: {server: 'https://h', proxy-url: 'http://p'}}]",
       absl::StatusCode::kUnimplemented, "proxy-url"},
      {"CA missing",
       head + "clusters: [{name: c, cluster: {server: 'https://h', certificate-authority: nowhere.pem}}]",
       absl::StatusCode::kNotFound, "certificate-authority"},
      {"CA not base64",
       head + "clusters: [{name: c, cluster: {server: 'https://h', certificate-authority-data: '%%'}}]",
       absl::StatusCode::kInvalidArgument, "certificate-authority-data is not base64"},
      {"exec", head + cluster + "users: [{name: u, user: {exec: {command: aws}}}]",
       absl::StatusCode::kUnimplemented, "exec is not supported"},
      {"auth-provider", head + cluster + "users: [{name: u, user: {auth-provider: {name: gcp}}}]",
       absl::StatusCode::kUnimplemented, "auth-provider"},
      {"password", head + cluster + "users: [{name: u, user: {username: a, password: b}}]",
       absl::StatusCode::kUnimplemented, "username"},
      {"half a certificate", head + cluster + "users: [{name: u, user: {client-certificate-data: Q0VSVA==}}]",
       absl::StatusCode::kInvalidArgument, "go together"},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.name);
    write(directory / "config", each.text);
    const auto config = load_kubeconfig(directory / "config", "");
    EXPECT_EQ(config.status().code(), each.code) << config.status();
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(std::string(each.message)));
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(directory / "config"));
  }
  EXPECT_EQ(load_kubeconfig(directory / "nothing", "").status().code(), absl::StatusCode::kNotFound);
}

TEST(Kubeconfig, SeveralFilesAreOne) {
  TempDir directory;
  std::filesystem::create_directory(directory / "sub");
  write(directory / "a", "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n");
  write(directory / "sub/b",
        "current-context: ignored\nclusters: [{name: c, cluster: {server: 'https://h', "
        "certificate-authority: ca}}]\n"
        "users: [{name: u, user: {token: t}}]\n");
  write(directory / "sub/ca", "CA");
  const auto config =
      load_kubeconfig((directory / "a") + ":" + (directory / "missing") + ":" + (directory / "sub/b"), "");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->server, "https://h");
  EXPECT_EQ(config->tls.ca_pem, "CA");
}

TEST(InCluster, ReadsTheServiceAccount) {
  TempDir directory;
  write(directory / "token", "secret\n");
  write(directory / "ca.crt", "CA");
  write(directory / "namespace", "collage\n");
  const Variable host("KUBERNETES_SERVICE_HOST", "10.96.0.1"), port("KUBERNETES_SERVICE_PORT", "443");
  const auto config = in_cluster_config(directory.path());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->server, "https://10.96.0.1:443");
  EXPECT_EQ(config->token.reveal(), "secret");
  EXPECT_EQ(config->token_file, directory / "token");
  EXPECT_EQ(config->tls.ca_pem, "CA");
  EXPECT_EQ(config->name_space, "collage");
  const Variable ipv6("KUBERNETES_SERVICE_HOST", "fd00::1");
  EXPECT_EQ(in_cluster_config(directory.path())->server, "https://[fd00::1]:443");
  EXPECT_EQ(in_cluster_config(directory / "missing").status().code(), absl::StatusCode::kNotFound);
}

TEST(InCluster, OutsideAPodItSaysSo) {
  const Variable host("KUBERNETES_SERVICE_HOST", nullptr);
  EXPECT_EQ(in_cluster_config().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(FindConfig, InThisOrder) {
  TempDir directory;
  auto config_of = [&](const std::string& server) {
    return "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\nclusters: [{name: c, cluster: "
           "{server: '" +
           server + "'}}]\n";
  };
  std::filesystem::create_directories(directory / ".kube");
  const Variable host("KUBERNETES_SERVICE_HOST", nullptr), home("HOME", directory.path().c_str()),
      none("KUBECONFIG", nullptr);
  EXPECT_EQ(find_config("", "").status().code(), absl::StatusCode::kFailedPrecondition);
  write(directory / ".kube/config", config_of("https://home"));
  EXPECT_EQ(find_config("", "")->server, "https://home");
  write(directory / "env", config_of("https://env"));
  const Variable variable("KUBECONFIG", (directory / "env").c_str());
  EXPECT_EQ(find_config("", "")->server, "https://env");
  write(directory / "given", config_of("https://given"));
  EXPECT_EQ(find_config(directory / "given", "")->server, "https://given");
}

}  // namespace
}  // namespace collage::kube
