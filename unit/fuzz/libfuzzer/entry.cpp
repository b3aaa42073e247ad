// One program a target: FUZZ_TARGET names the function.
#include <cstddef>
#include <cstdint>

#include "unit/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  collage::fuzz::FUZZ_TARGET({reinterpret_cast<const char*>(data), size});
  return 0;
}
