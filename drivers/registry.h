#pragma once

#include <vector>

#include "drivers/kind.h"

namespace collage::drivers {

// Every kind that this program knows: the only place that names them all.
const std::vector<Kind>& kinds();

}  // namespace collage::drivers
