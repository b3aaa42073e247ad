#include "operator/engine/backends.h"

#include <utility>

namespace collage::engine {

std::shared_ptr<const Backend> Backends::get(const std::string& name) const {
  std::lock_guard lock(mutex_);
  const auto found = backends_.find(name);
  return found == backends_.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<const Backend>> Backends::list() const {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<const Backend>> all;
  all.reserve(backends_.size());
  for (const auto& [name, backend] : backends_) all.push_back(backend);
  return all;
}

void Backends::set(std::shared_ptr<const Backend> backend) {
  std::lock_guard lock(mutex_);
  backends_[backend->spec.name] = std::move(backend);
}

void Backends::remove(const std::string& name) {
  std::shared_ptr<const Backend> last;  // destroyed after the lock is given back
  std::lock_guard lock(mutex_);
  const auto found = backends_.find(name);
  if (found == backends_.end()) return;
  last = std::move(found->second);
  backends_.erase(found);
}

}  // namespace collage::engine
