#include "base/compress.h"

#include <zlib.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace collage::base {

std::string compress(std::string_view data) {
  uLongf size = compressBound(data.size());
  std::string result(size, '\0');
  // The only errors are a buffer that is too small and no memory for the state.
  const int code = compress2(reinterpret_cast<Bytef*>(result.data()), &size,
                             reinterpret_cast<const Bytef*>(data.data()), data.size(), Z_BEST_SPEED);
  if (code != Z_OK) throw std::bad_alloc();
  result.resize(size);
  return result;
}

absl::StatusOr<std::string> decompress(std::string_view compressed, size_t limit) {
  z_stream stream{};
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(compressed.data()));
  stream.avail_in = static_cast<uInt>(compressed.size());
  if (inflateInit(&stream) != Z_OK) throw std::bad_alloc();
  std::string result;
  int code = Z_OK;
  while (code == Z_OK && result.size() <= limit) {
    const size_t had = result.size();
    result.resize(std::min(limit + 1, std::max<size_t>(4096, 2 * had)));
    stream.next_out = reinterpret_cast<Bytef*>(result.data() + had);
    stream.avail_out = static_cast<uInt>(result.size() - had);
    code = inflate(&stream, Z_NO_FLUSH);
    result.resize(result.size() - stream.avail_out);
  }
  const bool rest = stream.avail_in > 0;
  inflateEnd(&stream);
  if (result.size() > limit)
    return absl::ResourceExhaustedError(absl::StrCat("more than ", limit, " bytes when decompressed"));
  if (code != Z_STREAM_END || rest) return absl::InvalidArgumentError("not compressed by zlib, or damaged");
  return result;
}

}  // namespace collage::base
