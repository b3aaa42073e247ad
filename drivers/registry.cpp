#include "drivers/registry.h"

#include "drivers/image/image_driver.h"
#include "drivers/local/local_driver.h"

namespace collage::drivers {

const std::vector<Kind>& kinds() {
  static const std::vector<Kind>* const all = new std::vector<Kind>{
      image_kind(),
      local_kind(),
  };
  return *all;
}

}  // namespace collage::drivers
