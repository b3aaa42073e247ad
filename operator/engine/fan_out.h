#pragma once

#include <cstddef>
#include <functional>

namespace collage::engine {

// Calls work(0) ... work(count - 1), at most `at_once` at the same time, each on a thread of its own; returns
// when all calls that were begun have ended. Once one answers false, no further call begins. work must be
// thread safe.
void fan_out(size_t count, size_t at_once, const std::function<bool(size_t)>& work);

}  // namespace collage::engine
