#pragma once

#include <memory>
#include <string>
#include <vector>

#include "drivers/driver.h"
#include "drivers/kind.h"

namespace collage::testing {

// The storage behind one kind, made for one test: a directory for the kinds that keep files, a simulator for
// those with a provider.
class Storage {
 public:
  virtual ~Storage() = default;
  // A driver as node `number` has it: its own object, the same storage. Kinds whose volumes belong to one
  // node have node 0 only.
  virtual std::unique_ptr<drivers::Driver> driver(int number = 0) = 0;
  virtual std::string node_id(int number) const;
  // At least this many bytes can be asked for at once, and no more than the second.
  virtual int64_t room_bytes() const = 0;
};

// nullptr when there is none for that kind, which fails the conformance suite.
std::unique_ptr<Storage> make_storage(const drivers::Kind& kind);

// A request that every kind can serve: the smallest size, its first modes, `name`.
drivers::CreateRequest a_request(const drivers::DriverInfo& info, const std::string& name);

// The same driver reached as the operator reaches one on a node: each call becomes an operation in JSON text,
// is carried out from that text, and its answer comes back as text. Thread safe as the driver is.
std::unique_ptr<drivers::Driver> through_operations(std::unique_ptr<drivers::Driver> driver);

// A driver whose answers get lost on the way: while lose(true), each call takes effect and answers
// UNAVAILABLE.
class LossyDriver : public drivers::Driver, private drivers::Attacher {
 public:
  explicit LossyDriver(drivers::Driver& driver) : driver_(driver) {}
  void lose(bool lose) { lose_ = lose; }

  const drivers::DriverInfo& info() const override { return driver_.info(); }
  absl::StatusOr<drivers::ProbeResult> probe(const base::Context& context,
                                             const ProbeOptions& options) override;
  absl::StatusOr<drivers::Volume> create(const base::Context& context,
                                         const drivers::CreateRequest& request) override;
  absl::Status remove(const base::Context& context, const std::string& volume_id) override;
  absl::StatusOr<std::optional<drivers::Volume>> find(const base::Context& context,
                                                      const std::string& name) override;
  absl::StatusOr<drivers::Volume> inspect(const base::Context& context,
                                          const std::string& volume_id) override;
  absl::StatusOr<drivers::VolumePage> list(const base::Context& context, const std::string& token,
                                           int max_entries) override;
  absl::StatusOr<drivers::Access> access(const std::string& volume_id,
                                         const drivers::StringMap& volume_context,
                                         const drivers::StringMap& publish_context) const override;
  drivers::Attacher* attacher() override { return driver_.attacher() == nullptr ? nullptr : this; }

 private:
  absl::StatusOr<drivers::StringMap> attach(const base::Context& context, const std::string& volume_id,
                                            const std::string& node_id,
                                            const drivers::VolumeCapability& capability,
                                            bool read_only) override;
  absl::Status detach(const base::Context& context, const std::string& volume_id,
                      const std::string& node_id) override;
  absl::Status fence(const base::Context& context, const std::string& volume_id,
                     const std::string& node_id) override;
  absl::StatusOr<std::string> proof_of_absence(const base::Context& context,
                                               const std::string& node_id) override;
  template <typename T>
  T answer(T result) const;

  drivers::Driver& driver_;
  bool lose_ = false;
};

}  // namespace collage::testing
