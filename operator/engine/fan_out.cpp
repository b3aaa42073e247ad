#include "operator/engine/fan_out.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace collage::engine {

void fan_out(size_t count, size_t at_once, const std::function<bool(size_t)>& work) {
  std::atomic<size_t> next = 0;
  std::atomic<bool> enough = false;
  const auto run = [&] {
    while (!enough) {
      const size_t index = next++;
      if (index >= count) return;
      if (!work(index)) enough = true;
    }
  };
  std::vector<std::jthread> others;
  for (size_t i = 1; i < std::min(count, at_once); ++i) others.emplace_back(run);
  run();
}

}  // namespace collage::engine
