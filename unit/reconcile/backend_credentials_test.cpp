#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "base/log.h"
#include "operator/reconcile/attach_decision.h"
#include "operator/reconcile/backend_controller.h"
#include "operator/reconcile/config_map_intents.h"
#include "operator/reconcile/provision_decision.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_driver.h"
#include "unit/testing/fake_nodes.h"

// Secrets of backends, with a kind of storage that demands a password.
namespace collage::reconcile {
namespace {

using base::Json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kOld[] = "old-and-good-password";
constexpr char kNew[] = "new-and-good-password";
constexpr char kWrong[] = "planted-wrong-password";
// Of a password so long that half a Secret ends inside it; of a length that makes its base64 a repetition
// too.
constexpr char kPiece[] = "planted-password-piece-.";
static_assert((sizeof(kPiece) - 1) % 3 == 0);

// What is asked for the password, shared by all drivers of the test.
struct Vault {
  std::mutex mutex;
  std::set<std::string> accepted;
  std::string system_id = "vault-1";
  absl::Status down;                 // it does not answer
  std::vector<std::string> creates;  // the password of each
  int logins = 0;
  std::function<void()> during_create;
  std::shared_ptr<testing::FakeDriver> storage;

  absl::Status let_in(const std::string& password) {
    std::lock_guard lock(mutex);
    ++logins;
    if (!down.ok()) return down;
    if (accepted.contains(password)) return absl::OkStatus();
    // A storage system that repeats what it was told, as some do.
    return absl::UnauthenticatedError("login failed with password " + password);
  }
};
Vault* vault = nullptr;

class VaultDriver final : public drivers::Driver {
 public:
  explicit VaultDriver(std::string password) : password_(std::move(password)) {}
  const drivers::DriverInfo& info() const override;
  absl::StatusOr<drivers::ProbeResult> probe(const base::Context&, const ProbeOptions& options) override {
    if (absl::Status status = vault->let_in(password_); !status.ok()) return status;
    std::lock_guard lock(vault->mutex);
    const std::string id = password_ == "of-another-vault" ? "vault-2" : vault->system_id;
    if (!options.expected_system_id.empty() && options.expected_system_id != id)
      return absl::FailedPreconditionError("the vault is " + id);
    return drivers::ProbeResult{.system_id = id};
  }
  absl::StatusOr<drivers::Volume> create(const base::Context& context,
                                         const drivers::CreateRequest& request) override {
    if (absl::Status status = vault->let_in(password_); !status.ok()) return status;
    if (vault->during_create) vault->during_create();
    {
      std::lock_guard lock(vault->mutex);
      vault->creates.push_back(password_);
    }
    return vault->storage->create(context, request);
  }
  absl::Status remove(const base::Context& context, const std::string& id) override {
    return vault->storage->remove(context, id);
  }
  absl::StatusOr<std::optional<drivers::Volume>> find(const base::Context& context,
                                                      const std::string& name) override {
    return vault->storage->find(context, name);
  }
  absl::StatusOr<drivers::Volume> inspect(const base::Context& context, const std::string& id) override {
    return vault->storage->inspect(context, id);
  }
  absl::StatusOr<drivers::VolumePage> list(const base::Context& context, const std::string& token,
                                           int max) override {
    return vault->storage->list(context, token, max);
  }
  absl::StatusOr<drivers::Access> access(const std::string& id, const drivers::StringMap&,
                                         const drivers::StringMap&) const override {
    return drivers::BlockDevice{.serial = id};
  }

 private:
  const std::string password_;
};

drivers::Kind vault_kind() {
  drivers::Kind kind = testing::fake_kind({.attaches = false, .reports_capacity = false});
  kind.info.kind = "vault";
  kind.info.credentials = {"password"};
  kind.make = [](const drivers::DriverConfig& config) -> absl::StatusOr<std::unique_ptr<drivers::Driver>> {
    return std::make_unique<VaultDriver>(config.credentials.at("password").reveal());
  };
  return kind;
}

const drivers::DriverInfo& VaultDriver::info() const {
  static const drivers::DriverInfo info = vault_kind().info;
  return info;
}

std::mutex log_mutex;
std::string logged;
void keep_line(std::string_view line) {
  std::lock_guard lock(log_mutex);
  logged.append(line).append("\n");
}

class BackendCredentialsTest : public ::testing::Test {
 protected:
  BackendCredentialsTest() : client_(server_.client()), events_(*client_, "test", "test") {
    vault = &vault_;
    vault_.accepted = {kOld, kNew, "of-another-vault"};
    vault_.storage = std::make_shared<testing::FakeDriver>();
    base::log::set_sink(keep_line);
    logged.clear();
  }
  ~BackendCredentialsTest() override {
    if (controller_) controller_->stop();
    if (world_) world_->stop();
    base::log::set_sink(nullptr);
  }
  static Json secret(const std::string& password, const std::string& key = "password") {
    return testing::a_secret("collage-system", "vault-admin", {{key, password}});
  }
  void start(const std::string& recorded_system = "") {
    auto backend = testing::a_backend("safe").kind("vault", Json::object());
    backend.set("/spec/credentialsSecret", "vault-admin").generation(1);
    if (!recorded_system.empty()) backend.set("/status/systemID", recorded_system);
    server_.put(backend);
    world_ = std::make_unique<World>(*client_, events_, kinds_, "collage-system");
    world_->cluster_id = "cluster-1";
    world_->leads = [this] { return leads_ ? absl::OkStatus() : absl::CancelledError("leads no more"); };
    intents_ = std::make_unique<ConfigMapIntents>(*client_, "collage-system");
    controller_ = std::make_unique<BackendController>(*world_, nodes_, *intents_);
    world_->start(context_);
    ASSERT_TRUE(world_->wait_synced(context_).ok());
    controller_->start(context_);
  }
  std::string condition(const std::string& type, const std::string& field) const {
    const auto object = server_.get(kube::kStorageBackends, "safe");
    const Json* list = object ? base::find(*object, "/status/conditions") : nullptr;
    if (list == nullptr) return "";
    for (const Json& condition : *list) {
      if (base::get_string(condition, "/type") == type) return base::get_string(condition, "/" + field);
    }
    return "";
  }
  bool becomes(const std::string& type, const std::string& status, const std::string& reason,
               const std::string& says = "") const {
    return server_.wait_until([&] {
      return condition(type, "status") == status && condition(type, "reason") == reason &&
             absl::StrContains(condition(type, "message"), says);
    });
  }
  bool works() const {
    return becomes("Ready", "True", "Ready") && becomes("CredentialsValid", "True", "Valid");
  }
  bool told(const std::string& reason) {
    return server_.wait_until([&] {
      events_.flush(context_.with_timeout(std::chrono::seconds(5)));
      const auto list = server_.list(kube::kEvents);
      return std::any_of(list.begin(), list.end(),
                         [&](const Json& event) { return base::get_string(event, "/reason") == reason; });
    });
  }
  // Conditions, events, logs and every request but the one that wrote the Secret itself.
  std::string everything_told() const {
    std::string all;
    for (const auto& request : server_.requests()) {
      all += request.body;
      for (const auto& [name, value] : request.query) all += value;
    }
    for (const auto& resource :
         {kube::kStorageBackends, kube::kEvents, kube::kConfigMaps, kube::kStorageClasses}) {
      for (const Json& object : server_.list(resource)) all += base::dump_json(object);
    }
    std::lock_guard lock(log_mutex);
    return all + logged;
  }
  absl::Status create(const std::string& name) const {
    return world_->backends.get("safe")
        ->driver
        ->create(context_,
                 {.name = name, .required_bytes = 1 << 20, .capabilities = {drivers::VolumeCapability{}}})
        .status();
  }

  Vault vault_;
  testing::FakeApiServer server_;
  std::unique_ptr<kube::Client> client_;
  kube::EventRecorder events_;
  testing::FakeNodes nodes_;
  const std::vector<drivers::Kind> kinds_{vault_kind()};
  const base::Context context_;
  std::unique_ptr<World> world_;
  std::unique_ptr<ConfigMapIntents> intents_;
  std::unique_ptr<BackendController> controller_;
  std::atomic<bool> leads_ = true;
};

TEST_F(BackendCredentialsTest, AMissingSecretIsNamedAndTakenAsSoonAsItIsThere) {
  start();
  ASSERT_TRUE(becomes("CredentialsValid", "False", "InvalidCredentials"));
  EXPECT_THAT(condition("CredentialsValid", "message"),
              AllOf(HasSubstr("Secret collage-system/vault-admin does not exist"), HasSubstr("password")));
  EXPECT_EQ(condition("Ready", "reason"), "InvalidCredentials");
  server_.put(secret(kOld));
  EXPECT_TRUE(works());
}

TEST_F(BackendCredentialsTest, AMissingOrEmptyKeyIsNamed) {
  server_.put(secret(kOld, "pasword"));
  start();
  ASSERT_TRUE(becomes("CredentialsValid", "False", "InvalidCredentials", "has no key password: add it"));
  server_.put(secret(""));
  EXPECT_TRUE(becomes("CredentialsValid", "False", "InvalidCredentials", "has nothing in key password"));
}

TEST_F(BackendCredentialsTest, AWrongSecretAtTheBeginningSaysWhichKeyToCorrect) {
  server_.put(secret(kWrong));
  start();
  ASSERT_TRUE(becomes("CredentialsValid", "False", "InvalidCredentials"));
  EXPECT_THAT(condition("CredentialsValid", "message"),
              AllOf(HasSubstr("Secret collage-system/vault-admin is not accepted by the storage system"),
                    HasSubstr("correct password there"), Not(HasSubstr("earlier credentials"))));
  EXPECT_EQ(condition("Ready", "status"), "False");
  // Whatever brings the controller back to it, the account is not tried again so soon: it might be locked.
  server_.update(kube::kStorageBackends, "safe",
                 [](Json& backend) { backend["spec"]["limits"]["maxVolumes"] = 7; });
  ASSERT_TRUE(server_.wait_until([&] {
    const Json backend = *server_.get(kube::kStorageBackends, "safe");
    return base::get_int(backend, "/status/observedGeneration", 0) ==
           base::get_int(backend, "/metadata/generation", -1);
  }));
  {
    std::lock_guard lock(vault_.mutex);
    EXPECT_EQ(vault_.logins, 1);
  }
  server_.put(secret(kOld));
  EXPECT_TRUE(works());
}

TEST_F(BackendCredentialsTest, AWrongChangeKeepsTheOldInUse) {
  server_.put(secret(kOld));
  start();
  ASSERT_TRUE(works());
  for (const auto& [changed, says] : std::vector<std::pair<Json, std::string>>{
           {secret(kWrong), "is not accepted by the storage system"},
           {secret(kNew, "user"), "has no key password"},
           {secret("of-another-vault"), "leads to another storage system"}}) {
    server_.put(changed);
    ASSERT_TRUE(becomes("CredentialsValid", "False", "InvalidCredentials", says))
        << condition("CredentialsValid", "message");
    EXPECT_THAT(condition("CredentialsValid", "message"),
                AllOf(HasSubstr("Secret collage-system/vault-admin"), HasSubstr("password"),
                      HasSubstr("The earlier credentials stay in use")));
    EXPECT_EQ(condition("Ready", "status"), "True") << says;
    EXPECT_EQ(condition("Degraded", "status"), "True") << says;
    EXPECT_TRUE(create("pvc-1").ok());
  }
  server_.erase(kube::kSecrets, "collage-system/vault-admin");
  ASSERT_TRUE(becomes("CredentialsValid", "False", "InvalidCredentials", "does not exist"));
  EXPECT_TRUE(create("pvc-2").ok());
  for (const std::string& password : vault_.creates) EXPECT_EQ(password, kOld);
  server_.put(secret(kNew));
  ASSERT_TRUE(works());
  EXPECT_TRUE(told("CredentialsChanged"));
  EXPECT_TRUE(create("pvc-3").ok());
  EXPECT_EQ(vault_.creates.back(), kNew);
}

TEST_F(BackendCredentialsTest, AStorageThatDoesNotAnswerJudgesNothing) {
  server_.put(secret(kOld));
  start();
  ASSERT_TRUE(works());
  {
    std::lock_guard lock(vault_.mutex);
    vault_.down = absl::UnavailableError("no route to the vault");
  }
  server_.put(secret(kNew));
  ASSERT_TRUE(becomes("CredentialsValid", "Unknown", "NotValidated", "no route to the vault"));
  {
    std::lock_guard lock(vault_.mutex);
    vault_.down = absl::OkStatus();
  }
  EXPECT_TRUE(create("pvc-1").ok());
  EXPECT_EQ(vault_.creates.back(), kOld) << "not used before the vault has accepted it";
}

TEST_F(BackendCredentialsTest, ACallUnderWayFinishesWithTheOldOnes) {
  server_.put(secret(kOld));
  start();
  ASSERT_TRUE(works());
  std::mutex mutex;
  std::condition_variable changed;
  bool inside = false, go_on = false;
  vault_.during_create = [&] {
    std::unique_lock lock(mutex);
    inside = true;
    changed.notify_all();
    changed.wait(lock, [&] { return go_on; });
  };
  absl::Status result = absl::UnknownError("not run");
  std::thread call([&] { result = create("pvc-1"); });
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return inside; });
  }
  server_.put(secret(kNew));
  EXPECT_TRUE(told("CredentialsChanged"));
  {
    std::lock_guard lock(mutex);
    go_on = true;
  }
  changed.notify_all();
  call.join();
  EXPECT_TRUE(result.ok()) << result;
  EXPECT_EQ(vault_.creates.back(), kOld);
  vault_.during_create = nullptr;
  EXPECT_TRUE(create("pvc-2").ok());
  EXPECT_EQ(vault_.creates.back(), kNew);
}

TEST_F(BackendCredentialsTest, ItsDriverObeysTheLease) {
  server_.put(secret(kOld));
  start();
  ASSERT_TRUE(works());
  leads_ = false;
  EXPECT_TRUE(absl::IsCancelled(create("pvc-1")));
  EXPECT_TRUE(vault_.creates.empty());
  leads_ = true;
  EXPECT_TRUE(create("pvc-1").ok());
}

TEST_F(BackendCredentialsTest, AStorageThatIsAnotherOneStopsEveryOperationUntilItIsBack) {
  server_.put(secret(kOld));
  vault_.system_id = "vault-9";
  start("vault-1");
  ASSERT_TRUE(becomes("Reachable", "False", "ProbeFailed", "vault-9"));
  EXPECT_EQ(condition("Degraded", "status"), "True");
  auto backend = world_->backends.get("safe");
  ASSERT_NE(backend, nullptr);
  EXPECT_EQ(backend->system_id, "vault-1") << "what the volumes were made on";
  kube::Volume volume;
  volume.handle = "safe/vol-1";
  volume.driver = kube::Interned("vault.collage.storage");
  volume.system_id = kube::Interned("vault-1");
  const absl::Status refused = check_system("safe", *backend, volume);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("is left alone"));
  EXPECT_FALSE(judge_backend("safe", backend.get(), kinds_[0], "class", Begun::kYes).ok());
  {
    std::lock_guard lock(vault_.mutex);
    vault_.system_id = "vault-1";
  }
  server_.update(kube::kStorageBackends, "safe", [](Json& object) { object["metadata"]["generation"] = 2; });
  ASSERT_TRUE(becomes("Reachable", "True", "Reachable"));
  EXPECT_TRUE(
      server_.wait_until([&] { return check_system("safe", *world_->backends.get("safe"), volume).ok(); }));
}

TEST_F(BackendCredentialsTest, AValueOfTheSecretIsNowhereToBeRead) {
  server_.put(secret(kOld));
  start();
  ASSERT_TRUE(works());
  server_.put(secret(kWrong));
  ASSERT_TRUE(becomes("CredentialsValid", "False", "InvalidCredentials", "login failed with password ***"));
  ASSERT_TRUE(told("InvalidCredentials"));
  const std::string all = everything_told();
  EXPECT_THAT(all, HasSubstr("the earlier ones stay in use")) << "the log is looked at";
  for (const char* planted : {kOld, kWrong}) {
    EXPECT_THAT(all, Not(HasSubstr(planted)));
    EXPECT_THAT(all, Not(HasSubstr(absl::Base64Escape(planted))));
  }
}

// A proxy in between breaks the answers off in the middle, which is in the middle of the value.
TEST_F(BackendCredentialsTest, NorIsAValueOfASecretOfWhichHalfArrived) {
  std::string password;
  for (int i = 0; i < 200; ++i) password += kPiece;
  vault_.accepted.insert(password);
  server_.put(secret(password));
  const auto half = std::make_shared<std::atomic<bool>>(true);
  server_.on_request([half](const testing::ApiRequest& request) {
    return *half && request.resource == "secrets" ? testing::Fault::half_json() : testing::Fault{};
  });
  start();
  ASSERT_TRUE(server_.wait_until(
      [&] { return server_.count("get", "secrets") >= 2 && server_.count("watch", "secrets") >= 2; }));
  std::string all;
  // Clients of their own: what the other one says of the server's health, its next good call takes back.
  const auto getter = server_.client(), watcher = server_.client();
  const absl::Status got = getter->get(context_, kube::kSecrets, {"collage-system", "vault-admin"}).status();
  const absl::Status watched =
      watcher->watch(context_, kube::kSecrets,
                     {.name_space = "collage-system", .field_selector = "metadata.name=vault-admin"}, "",
                     [](const kube::WatchEvent&) { return absl::AbortedError("a whole event"); });
  for (const absl::Status& status : {got, watched, getter->server_health(), watcher->server_health()}) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(status.ToString(), HasSubstr("not JSON at byte")) << "what went wrong is told";
    all += status.ToString();
  }
  *half = false;
  EXPECT_TRUE(works());
  all += everything_told();
  for (const char* told : {"problem=garbled", "get secrets", "watch secrets"})
    EXPECT_THAT(all, HasSubstr(told)) << "the log is looked at";
  const std::string encoded = absl::Base64Escape(kPiece);
  for (const std::string& planted : {std::string(kPiece), encoded, encoded.substr(0, 12)})
    EXPECT_THAT(all, Not(HasSubstr(planted)));
}

TEST_F(BackendCredentialsTest, SecretsAreReadByNameAndNeverListed) {
  server_.put(secret(kOld));
  server_.put(testing::a_secret("collage-system", "of-somebody-else", {{"password", "x"}}));
  start();
  ASSERT_TRUE(works());
  EXPECT_TRUE(server_.wait_until([&] { return server_.count("watch", "secrets") > 0; }));
  EXPECT_EQ(server_.count("list", "secrets"), 0);
  for (const auto& request : server_.requests("watch", "secrets")) {
    EXPECT_EQ(request.name_space, "collage-system");
    EXPECT_EQ(request.query.at("fieldSelector"), "metadata.name=vault-admin");
  }
  for (const auto& request : server_.requests("get", "secrets")) EXPECT_EQ(request.name, "vault-admin");
}

TEST_F(BackendCredentialsTest, ASecretThatMayNotBeReadSaysSoAndTheOldGoesOn) {
  server_.put(secret(kOld));
  start();
  ASSERT_TRUE(works());
  server_.on_request([](const testing::ApiRequest& request) {
    return request.resource == "secrets" && request.verb == "get" ? testing::Fault::answer(403, "Forbidden")
                                                                  : testing::Fault{};
  });
  server_.put(secret(kNew));
  ASSERT_TRUE(becomes("CredentialsValid", "False", "InvalidCredentials", "may not be read by the operator"));
  EXPECT_EQ(condition("Ready", "status"), "True");
  EXPECT_TRUE(create("pvc-1").ok());
}

}  // namespace
}  // namespace collage::reconcile
