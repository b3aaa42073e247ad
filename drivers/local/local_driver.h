#pragma once

#include "drivers/kind.h"

namespace collage::drivers {

// Kind `local`: a volume is an image file in a directory of one node, {"directory":
// "/var/lib/collage/volumes"}. No attach; the node that owns a volume is its topology and the first half of
// its id, "<node>/<name>".
Kind local_kind();

}  // namespace collage::drivers
