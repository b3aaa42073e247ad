#pragma once

#include <map>
#include <string>
#include <vector>

#include "drivers/volume.h"
#include "unit/testing/fake_api_server.h"

namespace collage::testing {

// What a storage system holds, looked at behind the operator's back.
class StorageView {
 public:
  virtual ~StorageView() = default;
  virtual std::vector<drivers::Volume> volumes() = 0;
  // The content of a volume, as the application that uses it has it. read() of what was never written: "".
  virtual void write(const drivers::Volume& volume, const std::string& content) = 0;
  virtual std::string read(const drivers::Volume& volume) = 0;
};

// Compares what a storage system holds with what the API server says of it. Answers sentences, one a wrong,
// each beginning with "leaked", "doubled" or "lost"; none when all is well. Asked while no operator acts.
// Backend "fast", intents in ConfigMap collage/collage-intents-fast.
class Oracle {
 public:
  Oracle(const FakeApiServer& api, StorageView& storage) : api_(api), storage_(storage) {}

  // Every Bound claim's application writes to its volume now; the content must be there as long as the claim
  // is.
  void applications_write();

  // What must be true at whatever instant an operator was killed: no volume that neither a PersistentVolume
  // nor an intent knows, no attachment that no VolumeAttachment of ours knows, no Bound claim without its
  // volume and data.
  std::vector<std::string> wrongs() const;
  // And what must be true besides once the operator has nothing left to do: no intent is left, every claim is
  // Bound, every claim name has one volume, every volume that is not wanted any more is gone.
  std::vector<std::string> wrongs_at_rest() const;

 private:
  struct Facts;
  Facts look() const;
  void check_volumes(const Facts& facts, std::vector<std::string>& wrongs) const;
  void check_attachments(const Facts& facts, std::vector<std::string>& wrongs) const;
  void check_claims(const Facts& facts, std::vector<std::string>& wrongs) const;
  void check_rest(const Facts& facts, std::vector<std::string>& wrongs) const;

  const FakeApiServer& api_;
  StorageView& storage_;
  std::map<std::string, std::string> written_;  // claim uid -> content
};

}  // namespace collage::testing
