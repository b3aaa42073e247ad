#pragma once

#include "drivers/kind.h"

namespace collage::drivers {

// Kind `image`: a volume is an image file in a directory that several nodes share, {"directory":
// "/srv/share"}. A marker file tells the share from an empty mount point; records in the share attach a
// volume to one node at a time.
Kind image_kind();

}  // namespace collage::drivers
