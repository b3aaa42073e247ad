#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "base/context.h"
#include "drivers/store/store_directory.h"

namespace collage::drivers {

enum class Allocation {
  kFull,    // every block is reserved now: a file system on the volume never meets a full directory
  kSparse,  // blocks are taken when they are written
};

// Makes a new image file of `bytes` that reads as zeros, on the disk when this returns. On an error a part of
// it may stay: the caller removes it. Full allocation on a share without fallocate (NFS before 4.2) writes
// the zeros; that takes a while, and ends early with the context.
absl::Status make_image_file(const base::Context& context, const StoreDirectory& directory,
                             const std::string& path, int64_t bytes, Allocation allocation);

}  // namespace collage::drivers
