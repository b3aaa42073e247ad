#include "operator/kube/interned.h"

#include <mutex>
#include <shared_mutex>
#include <unordered_set>

namespace collage::kube {
namespace {

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

// Node-based, so that the address of an element never changes. Lives until the process ends: values outlive
// any static.
struct Table {
  std::shared_mutex mutex;
  std::unordered_set<std::string, TextHash, std::equal_to<>> texts;
};

Table& table() {
  static Table* const table = new Table;
  return *table;
}

const std::string* empty_text() {
  static const std::string* const empty = new std::string;
  return empty;
}

const std::string* intern(std::string_view text) {
  if (text.empty()) return empty_text();
  Table& all = table();
  {
    std::shared_lock lock(all.mutex);
    if (const auto found = all.texts.find(text); found != all.texts.end()) return &*found;
  }
  std::unique_lock lock(all.mutex);
  return &*all.texts.emplace(text).first;
}

}  // namespace

Interned::Interned() : text_(empty_text()) {}
Interned::Interned(std::string_view text) : text_(intern(text)) {}

}  // namespace collage::kube
