#include "unit/drivers/conformance.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "drivers/registry.h"

namespace collage::testing {

using drivers::Driver;
using drivers::Kind;
using drivers::Volume;

namespace {

std::vector<Subject> subjects_of(bool only_attaching) {
  std::vector<Subject> subjects;
  for (const Kind& kind : drivers::kinds()) {
    if (only_attaching && !kind.attaches) continue;
    for (Way way : {Way::kDirect, Way::kAsOperations}) subjects.push_back({kind.info.kind, way});
  }
  return subjects;
}

}  // namespace

std::vector<Subject> all_subjects() {
  return subjects_of(false);
}

std::vector<Subject> attaching_subjects() {
  return subjects_of(true);
}

std::string subject_name(const ::testing::TestParamInfo<Subject>& info) {
  return absl::StrCat(info.param.kind, info.param.way == Way::kDirect ? "_called" : "_as_operations");
}

void Conformance::SetUp() {
  for (const Kind& kind : drivers::kinds()) {
    if (kind.info.kind == GetParam().kind) kind_ = &kind;
  }
  ASSERT_NE(kind_, nullptr);
  storage_ = make_storage(*kind_);
  ASSERT_NE(storage_, nullptr) << "kind " << GetParam().kind << " has no storage in unit/drivers/storage.cpp";
  driver_ = driver_on(0);
  ASSERT_NE(driver_, nullptr);
}

std::unique_ptr<Driver> Conformance::driver_on(int node) {
  std::unique_ptr<Driver> driver = storage_->driver(node);
  if (driver == nullptr || GetParam().way == Way::kDirect) return driver;
  return through_operations(std::move(driver));
}

Volume Conformance::created(const std::string& name) {
  auto volume = driver_->create(context_, request(name));
  EXPECT_TRUE(volume.ok()) << base::to_string(volume.status());
  return volume.value_or(Volume{});
}

std::vector<Volume> Conformance::all_volumes() {
  std::vector<Volume> volumes;
  std::string token;
  do {
    auto page = driver_->list(context_, token, 0);
    EXPECT_TRUE(page.ok()) << base::to_string(page.status());
    if (!page.ok()) break;
    volumes.insert(volumes.end(), page->volumes.begin(), page->volumes.end());
    token = page->next_token;
  } while (!token.empty());
  return volumes;
}

std::vector<std::string> Conformance::all_names() {
  std::vector<std::string> names;
  for (const Volume& volume : all_volumes()) names.push_back(volume.name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace collage::testing
