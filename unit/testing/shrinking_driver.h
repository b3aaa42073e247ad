#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "unit/testing/fake_driver.h"

namespace collage::testing {

// Answers otherwise than the driver it wraps has done.
class ShrinkingDriver final : public drivers::Driver {
 public:
  explicit ShrinkingDriver(std::shared_ptr<FakeDriver> inner) : inner_(std::move(inner)) {}
  const drivers::DriverInfo& info() const override { return inner_->info(); }
  absl::StatusOr<drivers::ProbeResult> probe(const base::Context& context,
                                             const ProbeOptions& options) override {
    return inner_->probe(context, options);
  }
  absl::StatusOr<drivers::Volume> create(const base::Context& context,
                                         const drivers::CreateRequest& request) override {
    auto volume = inner_->create(context, request);
    if (volume.ok() && shrink-- > 0) volume->capacity_bytes /= 2;
    if (volume.ok() && silent) volume->capacity_bytes = 0;
    return volume;
  }
  absl::Status remove(const base::Context& context, const std::string& id) override {
    return inner_->remove(context, id);
  }
  absl::StatusOr<std::optional<drivers::Volume>> find(const base::Context& context,
                                                      const std::string& name) override {
    return inner_->find(context, name);
  }
  absl::StatusOr<drivers::Volume> inspect(const base::Context& context, const std::string& id) override {
    return inner_->inspect(context, id);
  }
  absl::StatusOr<drivers::VolumePage> list(const base::Context& context, const std::string& token,
                                           int max) override {
    return inner_->list(context, token, max);
  }
  absl::StatusOr<drivers::Access> access(const std::string& id, const drivers::StringMap& volume,
                                         const drivers::StringMap& publish) const override {
    return inner_->access(id, volume, publish);
  }
  std::atomic<int> shrink = 0;       // so many creates say that the volume has half its size
  std::atomic<bool> silent = false;  // creates do not say how large it is

 private:
  std::shared_ptr<FakeDriver> inner_;
};

}  // namespace collage::testing
