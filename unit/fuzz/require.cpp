#include <cstdio>
#include <cstdlib>

#include "unit/fuzz/targets.h"

namespace collage::fuzz {

void require(bool kept, const char* what) {
  if (kept) return;
  fprintf(stderr, "a broken promise: %s\n", what);
  abort();
}

}  // namespace collage::fuzz
