#pragma once

#include <chrono>
#include <cstdint>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

// Little memory for a program that mostly waits.
namespace collage::base {

// Fewer arenas of malloc, each of which keeps what its threads once needed. Before the first thread starts.
void share_arenas();

struct Mapping {
  uintptr_t begin = 0, end = 0;
  friend bool operator==(const Mapping&, const Mapping&) = default;
};
// The mappings of a /proc/PID/smaps that hold nothing but pages of a file as they are on the disk: code and
// constants of programs and libraries.
std::vector<Mapping> clean_file_mappings(std::string_view smaps);

// Gives back, a while after the start and then regularly, the pages of code and constants that were used (the
// kernel maps a page again when it is touched, from its cache), and what malloc keeps free. A process counts
// as large as all that it ever touched otherwise. One a process.
class MemoryTrimmer {
 public:
  explicit MemoryTrimmer(std::chrono::seconds first = std::chrono::seconds(10),
                         std::chrono::seconds every = std::chrono::seconds(60));
  // Now; for tests.
  static void trim();

 private:
  std::jthread thread_;
};

}  // namespace collage::base
