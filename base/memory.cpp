#include "base/memory.h"

#include <malloc.h>
#include <sys/mman.h>

#include <charconv>
#include <condition_variable>
#include <mutex>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "base/files.h"
#include "base/strings.h"

namespace collage::base {
namespace {

constexpr int kArenas = 2;
constexpr size_t kMostBytes = 16 << 20;

bool read_hex(std::string_view text, uintptr_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return error == std::errc() && end == text.data() + text.size();
}

// "7f0c-7f0d r-xp 00000000 08:01 123   /usr/lib/libc.so.6", when it is a file's and cannot be written.
bool read_file_mapping(absl::string_view line, Mapping& mapping) {
  const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ', absl::SkipEmpty());
  if (fields.size() < 6 || fields[1].size() != 4 || fields[4] == "0" || !absl::StartsWith(fields[5], "/"))
    return false;
  const size_t dash = fields[0].find('-');
  if (fields[1][0] != 'r' || fields[1][1] == 'w' || dash == absl::string_view::npos) return false;
  const std::string_view range(fields[0].data(), fields[0].size());
  return read_hex(range.substr(0, dash), mapping.begin) && read_hex(range.substr(dash + 1), mapping.end);
}

}  // namespace

void share_arenas() {
  mallopt(M_ARENA_MAX, kArenas);
}

std::vector<Mapping> clean_file_mappings(std::string_view smaps) {
  std::vector<Mapping> mappings;
  Mapping mapping;
  bool file = false;
  for (absl::string_view line : absl::StrSplit(absl_view(smaps), '\n', absl::SkipEmpty())) {
    const size_t word = line.find(' ');
    const bool head = word != absl::string_view::npos && word > 0 && line[word - 1] != ':';
    if (head) file = read_file_mapping(line, mapping);
    // What was written to, by the dynamic linker for example, is no page of the file any more.
    if (!file || !absl::StartsWith(line, "Anonymous:")) continue;
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (fields.size() == 3 && fields[1] == "0") mappings.push_back(mapping);
  }
  return mappings;
}

void MemoryTrimmer::trim() {
  // Libraries are loaded at the start; what is loaded later is left alone.
  static const std::vector<Mapping> mappings = [] {
    const auto smaps = read_file("/proc/self/smaps", kMostBytes);
    return smaps.ok() ? clean_file_mappings(*smaps) : std::vector<Mapping>{};
  }();
  malloc_trim(0);
  for (const Mapping& mapping : mappings)
    madvise(reinterpret_cast<void*>(mapping.begin), mapping.end - mapping.begin, MADV_DONTNEED);
}

MemoryTrimmer::MemoryTrimmer(std::chrono::seconds first, std::chrono::seconds every)
    : thread_([first, every](std::stop_token stop) {
        std::mutex mutex;
        std::condition_variable_any wake;
        std::unique_lock lock(mutex);
        const auto never = [] { return false; };
        for (auto pause = first; !wake.wait_for(lock, stop, pause, never) && !stop.stop_requested();
             pause = every)
          trim();
      }) {}

}  // namespace collage::base
