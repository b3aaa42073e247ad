#pragma once

#include <utility>

// The typed half of the informer: its store, indexes and handlers. Included by informer.h only.
namespace collage::kube {

template <typename T>
void Informer<T>::add_index(std::string name, IndexFunction function) {
  indexes_[std::move(name)].function = std::move(function);
}

template <typename T>
void Informer<T>::start(const base::Context& context) {
  thread_ = std::jthread([this, context](std::stop_token stop) {
    // Stopped by stop() and by the caller's context, whichever comes first.
    std::stop_source either;
    const std::stop_callback on_stop(stop, [&either] { either.request_stop(); });
    const std::stop_callback on_context(context.stop(), [&either] { either.request_stop(); });
    run_reflector(context.with_stop(either.get_token()), client_, T::kResource, options_, *this);
  });
}

template <typename T>
void Informer<T>::stop() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
}

template <typename T>
bool Informer<T>::has_synced() const {
  std::lock_guard lock(mutex_);
  return synced_;
}

template <typename T>
absl::Status Informer<T>::wait_synced(const base::Context& context) const {
  std::unique_lock lock(mutex_);
  while (!synced_) {
    if (absl::Status status = context.status(); !status.ok()) return status;
    // Short waits, since the context's clock need not be the one that condition variables know.
    synced_changed_.wait_for(lock, context.stop(), std::chrono::milliseconds(20), [this] { return synced_; });
  }
  return absl::OkStatus();
}

template <typename T>
typename Informer<T>::Object Informer<T>::get(const std::string& key) const {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : found->second.object;
}

template <typename T>
std::vector<typename Informer<T>::Object> Informer<T>::list() const {
  std::lock_guard lock(mutex_);
  std::vector<Object> result;
  result.reserve(entries_.size());
  for (const auto& [key, entry] : entries_) result.push_back(entry.object);
  return result;
}

template <typename T>
std::vector<typename Informer<T>::Object> Informer<T>::by_index(const std::string& index,
                                                                const std::string& value) const {
  std::lock_guard lock(mutex_);
  std::vector<Object> result;
  const auto named = indexes_.find(index);
  if (named == indexes_.end()) return result;
  const auto found = named->second.entries.find(value);
  if (found == named->second.entries.end()) return result;
  result.reserve(found->second.size());
  for (const Entry* entry : found->second) result.push_back(entry->object);
  return result;
}

template <typename T>
size_t Informer<T>::size() const {
  std::lock_guard lock(mutex_);
  return entries_.size();
}

template <typename T>
void Informer<T>::observe(const base::Json& object) {
  (void)put(object, Source::kOwnWrite);
}

template <typename T>
void Informer<T>::forget(const std::string& key) {
  std::lock_guard change(change_mutex_);
  std::unique_lock lock(mutex_);
  if (const auto found = entries_.find(key); found != entries_.end()) erase(found, lock);
}

template <typename T>
void Informer<T>::begin_relist() {
  std::lock_guard lock(mutex_);
  ++generation_;
  listing_ = true;
}

template <typename T>
void Informer<T>::position(const std::string& resource_version) {
  std::lock_guard lock(mutex_);
  if (const uint64_t version = version_number(resource_version); version != 0) advance(version);
}

template <typename T>
void Informer<T>::advance(uint64_t position) {
  position_ = position;
  if (waiting_ > 0) position_changed_.notify_all();
}

template <typename T>
bool Informer<T>::wait_for(uint64_t version, std::chrono::milliseconds at_most,
                           const std::stop_token& stop) const {
  std::unique_lock lock(mutex_);
  ++waiting_;
  const bool there =
      position_changed_.wait_for(lock, stop, at_most, [&] { return !listing_ && position_ >= version; });
  --waiting_;
  return there;
}

template <typename T>
absl::Status Informer<T>::upsert(const base::Json& object) {
  std::unique_lock lock(mutex_);
  const Source source = listing_ ? Source::kList : Source::kWatch;
  lock.unlock();  // begin_relist and end_relist run on this same thread: it cannot change meanwhile
  return put(object, source);
}

template <typename T>
absl::Status Informer<T>::put(const base::Json& object, Source source) {
  absl::StatusOr<T> parsed = parse<T>(object);
  if (!parsed.ok()) return parsed.status();
  const uint64_t version = version_number(parsed->meta.resource_version);
  std::string key = parsed->meta.key().to_string();
  const Object after = std::make_shared<const T>(std::move(*parsed));

  std::lock_guard change(change_mutex_);
  std::unique_lock lock(mutex_);
  const auto found = entries_.find(key);
  if (source == Source::kOwnWrite && found == entries_.end() && version != 0 && version <= position_) {
    return absl::OkStatus();  // deleted since
  }
  if (source == Source::kWatch && version > position_) advance(version);
  if (found != entries_.end()) {
    if (source == Source::kList) found->second.seen = generation_;
    const uint64_t copy = version_number(found->second.object->meta.resource_version);
    if (version != 0 && copy != 0 && version <= copy) return absl::OkStatus();
  }

  Object before;
  if (found == entries_.end()) {
    // Our own write does not count as seen by the list under way: end_relist tells by its version whether it
    // is still there.
    const uint32_t seen = source == Source::kOwnWrite && version != 0 ? generation_ - 1 : generation_;
    const auto added = entries_.emplace(std::move(key), Entry{after, seen}).first;
    index_add(added->second);
  } else {
    before = found->second.object;
    index_remove(found->second);
    found->second.object = after;
    index_add(found->second);
  }
  lock.unlock();
  notify(before, after);
  return absl::OkStatus();
}

template <typename T>
void Informer<T>::remove(const base::Json& object) {
  const absl::StatusOr<Meta> meta = parse_meta(object);
  if (!meta.ok()) return;
  std::lock_guard change(change_mutex_);
  std::unique_lock lock(mutex_);
  const uint64_t version = version_number(meta->resource_version);
  if (version > position_) advance(version);
  const auto found = entries_.find(meta->key().to_string());
  if (found == entries_.end()) return;
  // A later object of the same name, put in by our own write, is not the one that was deleted.
  const uint64_t copy = version_number(found->second.object->meta.resource_version);
  if (version != 0 && copy > version) return;
  erase(found, lock);
}

// Deletes what the list did not show, unless our own write put it in after the list was taken: the watch,
// which starts at the list's version, will tell about that.
template <typename T>
void Informer<T>::end_relist() {
  std::lock_guard change(change_mutex_);
  std::unique_lock lock(mutex_);
  std::vector<std::string> gone;
  for (const auto& [key, entry] : entries_) {
    const uint64_t version = version_number(entry.object->meta.resource_version);
    const bool newer = version != 0 && position_ != 0 && version > position_;
    if (entry.seen != generation_ && !newer) gone.push_back(key);
  }
  for (const std::string& key : gone) {
    erase(entries_.find(key), lock);
    lock.lock();
  }
  listing_ = false;
  synced_ = true;
  if (waiting_ > 0) position_changed_.notify_all();
  synced_changed_.notify_all();
}

// Unlocks `lock` before the handlers run. change_mutex_ is held by the caller.
template <typename T>
void Informer<T>::erase(typename Entries::iterator entry, std::unique_lock<std::mutex>& lock) {
  const Object before = entry->second.object;
  index_remove(entry->second);
  entries_.erase(entry);
  lock.unlock();
  notify(before, nullptr);
}

template <typename T>
void Informer<T>::index_add(const Entry& entry) {
  for (auto& [name, index] : indexes_) {
    for (const std::string& value : index.function(*entry.object)) {
      if (!value.empty()) index.entries[value].insert(&entry);
    }
  }
}

template <typename T>
void Informer<T>::index_remove(const Entry& entry) {
  for (auto& [name, index] : indexes_) {
    for (const std::string& value : index.function(*entry.object)) {
      const auto found = index.entries.find(value);
      if (found == index.entries.end()) continue;
      found->second.erase(&entry);
      if (found->second.empty()) index.entries.erase(found);
    }
  }
}

template <typename T>
void Informer<T>::notify(const Object& before, const Object& after) {
  for (const Handler& handler : handlers_) handler(before, after);
}

}  // namespace collage::kube
