#pragma once

#include <cstdint>
#include <string>

namespace collage::base {

// From the kernel's generator. Thread safe.
uint64_t random_uint64();
double random_unit();       // in [0, 1)
std::string random_uuid();  // version 4, lower case
std::string random_hex(int bytes);
// Hex of SHA-256.
std::string sha256_hex(const std::string& text);

}  // namespace collage::base
