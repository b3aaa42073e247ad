#include "base/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "base/files.h"

namespace collage::base {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kSmaps[] =
    "1000-3000 r-xp 00000000 08:01 17                 /usr/lib/libc.so.6\n"
    "Rss:                   8 kB\n"
    "Anonymous:             0 kB\n"
    "VmFlags: rd ex mr mw me sd\n"
    "3000-4000 r--p 00002000 08:01 17                 /usr/lib/libc.so.6\n"
    "Anonymous:             4 kB\n"
    "4000-5000 rw-p 00003000 08:01 17                 /usr/lib/libc.so.6\n"
    "Anonymous:             0 kB\n"
    "5000-6000 r--p 00000000 00:00 0\n"
    "Anonymous:             0 kB\n"
    "6000-7000 r--p 00000000 00:00 0                  [vvar]\n"
    "Anonymous:             0 kB\n"
    "7fff0000-7fff2000 r--p 00001000 fd:00 99         /opt/with space/lib.so (deleted)\n"
    "Anonymous:             0 kB\n";

TEST(Memory, OnlyPagesThatAreAsOnTheDiskAreGivenBack) {
  EXPECT_THAT(clean_file_mappings(kSmaps),
              ElementsAre(Mapping{0x1000, 0x3000}, Mapping{0x7fff0000, 0x7fff2000}));
  EXPECT_THAT(clean_file_mappings("x\ny-z r-xp 0 08:01 1 /lib\nAnonymous: 0 kB\n"), IsEmpty());
}

TEST(Memory, TrimmingGivesBackWhatTheStartNeededAndNothingElse) {
  const auto resident_file_kib = [] {
    const std::string status = *read_file("/proc/self/status");
    return std::stol(status.substr(status.find("RssFile:") + 8));
  };
  const long grown = resident_file_kib();
  MemoryTrimmer::trim();
  EXPECT_LT(resident_file_kib(), grown - 512);
  EXPECT_EQ(clean_file_mappings(kSmaps).size(), 2u) << "code runs on";
  MemoryTrimmer::trim();
  EXPECT_EQ(std::string("constants too").size(), 13u);
}

TEST(Memory, TheTrimmerEndsAtOnce) {
  const auto begun = std::chrono::steady_clock::now();
  { MemoryTrimmer trimmer; }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(2));
}

}  // namespace
}  // namespace collage::base
