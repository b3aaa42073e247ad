#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "unit/drivers/storage.h"

namespace collage::testing {

// How the suite reaches a driver: by calling it, or as the operator reaches one on a node.
enum class Way { kDirect, kAsOperations };

struct Subject {
  std::string kind;
  Way way = Way::kDirect;
};

std::vector<Subject> all_subjects();
std::vector<Subject> attaching_subjects();  // of the kinds that have an Attacher
std::string subject_name(const ::testing::TestParamInfo<Subject>& info);

// The promises of the port, held by every kind in the registry: one new storage a test, a driver on node 0.
class Conformance : public ::testing::TestWithParam<Subject> {
 protected:
  void SetUp() override;

  std::unique_ptr<drivers::Driver> driver_on(int node);
  drivers::CreateRequest request(const std::string& name) const { return a_request(driver_->info(), name); }
  // Creates it, or fails the test.
  drivers::Volume created(const std::string& name);
  std::vector<drivers::Volume> all_volumes();
  // Of all volumes, sorted.
  std::vector<std::string> all_names();

  const drivers::Kind* kind_ = nullptr;
  std::unique_ptr<Storage> storage_;
  std::unique_ptr<drivers::Driver> driver_;
  base::Context context_;
};

}  // namespace collage::testing
