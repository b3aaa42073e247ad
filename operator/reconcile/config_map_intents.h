#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>

#include "operator/engine/intents.h"
#include "operator/kube/client.h"

namespace collage::reconcile {

// The name of the ConfigMap that holds a backend's intents: "collage-intents-<backend>".
std::string intents_config_map(const std::string& backend);

// The intents of each backend in a ConfigMap of the operator's namespace: data is
// {claim uid: record}.
//
// Every save names the resourceVersion it builds on, so that a leader that was deposed without knowing it
// overwrites nothing. Every save also carries a token of its own: a write whose answer was lost is recognised
// by it when the ConfigMap is read back, and neither repeated nor mistaken for somebody else's. Thread safe;
// at most one save of a backend at a time.
class ConfigMapIntents final : public engine::IntentStore {
 public:
  ConfigMapIntents(kube::Client& client, std::string name_space);

  absl::StatusOr<Snapshot> load(const base::Context& context, const std::string& backend) override;
  absl::StatusOr<std::string> save(const base::Context& context, const std::string& backend,
                                   const std::map<std::string, std::string>& entries,
                                   const std::string& version) override;

 private:
  struct Stored {
    std::string version;  // "" when there is no ConfigMap
    std::string token;
    std::map<std::string, std::string> entries;
  };
  absl::StatusOr<Stored> read(const base::Context& context, const std::string& backend);
  absl::StatusOr<std::string> write(const base::Context& context, const std::string& backend,
                                    const base::Json& object, const std::string& version);
  std::string next_token();
  // Is this the token of a write of ours whose fate was unknown, since the last that surely arrived?
  bool is_doubtful(const std::string& backend, const std::string& token) const;

  kube::Client& client_;
  const std::string name_space_;
  const std::string identity_;  // of this process
  mutable std::mutex mutex_;
  uint64_t sequence_ = 0;
  std::map<std::string, std::set<std::string>> doubtful_;  // tokens by backend
};

}  // namespace collage::reconcile
