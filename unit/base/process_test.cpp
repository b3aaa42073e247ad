#include "base/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>

#include "unit/base/test_child.h"

namespace collage::base {
namespace {

using namespace std::chrono_literals;

// ---- What runs in the child

std::string mode() {
  const char* value = getenv("MODE");
  return value == nullptr ? "" : value;
}

// Waits for the stop and returns, as main does; MODE "hang" never returns.
TEST(ProcessChild, DISABLED_Serve) {
  block_signals();
  std::thread early([] {  // a library's thread: signals must not end the process there
    while (true) pause();
  });
  early.detach();
  Process process(mode() == "hang" ? 1s : 25s);
  process.on_reload([] { TestChild::say("reloaded"); });
  std::stop_callback on_stop(process.stop(), [] {
    if (mode() == "hang in a callback") {
      TestChild::say("callback");
      while (true) pause();
    }
  });
  TestChild::say("ready");
  if (mode() == "request") process.request_stop();
  process.wait();
  TestChild::say(process.stop().stop_requested() ? "stopping" : "wrong");
  while (mode().starts_with("hang")) pause();
  TestChild::say("returned");
}

TEST(ProcessChild, DISABLED_WriteIntoAClosedPipe) {
  block_signals();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  EXPECT_EQ(write(ends[1], "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
  TestChild::say("alive");
}

TEST(ProcessChild, DISABLED_EndWithoutStop) {
  block_signals();
  { Process process; }
  TestChild::say("ended");
}

// ---- The tests

TEST(Process, ASignalRequestsStopAndTheProcessReturns) {
  for (const int number : {SIGTERM, SIGINT}) {
    TestChild child("ProcessChild.DISABLED_Serve");
    ASSERT_EQ(child.line(), "ready");
    child.signal(number);
    EXPECT_EQ(child.line(), "stopping");
    EXPECT_EQ(child.line(), "returned");
    EXPECT_EQ(child.wait(), 0);
  }
}

TEST(Process, StopCanBeRequestedFromInside) {
  TestChild child("ProcessChild.DISABLED_Serve", {{"MODE", "request"}});
  EXPECT_EQ(child.line(), "ready");
  EXPECT_EQ(child.line(), "stopping");
  EXPECT_EQ(child.line(), "returned");
  EXPECT_EQ(child.wait(), 0);
}

TEST(Process, EndsWithCode1WhenTheGraceIsOver) {
  TestChild child("ProcessChild.DISABLED_Serve", {{"MODE", "hang"}});
  ASSERT_EQ(child.line(), "ready");
  const auto before = std::chrono::steady_clock::now();
  child.signal(SIGTERM);
  EXPECT_EQ(child.line(), "stopping");
  EXPECT_EQ(child.line(), "");
  EXPECT_EQ(child.wait(), 1);
  EXPECT_GE(std::chrono::steady_clock::now() - before, 1s);
}

TEST(Process, ASecondSignalEndsItAtOnce) {
  TestChild child("ProcessChild.DISABLED_Serve", {{"MODE", "hang in a callback"}});
  ASSERT_EQ(child.line(), "ready");
  child.signal(SIGTERM);
  // Though a callback of the first stop hangs.
  std::string said = child.line();
  EXPECT_TRUE(said == "callback" || said == "stopping") << said;
  child.signal(SIGINT);
  while (!said.empty()) said = child.line();
  EXPECT_EQ(child.wait(), 1);
}

TEST(Process, HangupReloads) {
  TestChild child("ProcessChild.DISABLED_Serve");
  ASSERT_EQ(child.line(), "ready");
  for (int i = 0; i < 3; ++i) {
    child.signal(SIGHUP);
    EXPECT_EQ(child.line(), "reloaded");
  }
  child.signal(SIGTERM);
  EXPECT_EQ(child.line(), "stopping");
}

TEST(Process, ABrokenPipeIsAnErrorNotAnEnd) {
  TestChild child("ProcessChild.DISABLED_WriteIntoAClosedPipe");
  EXPECT_EQ(child.line(), "alive");
  EXPECT_EQ(child.wait(), 0);
}

TEST(Process, EndsWithoutAStop) {
  TestChild child("ProcessChild.DISABLED_EndWithoutStop");
  EXPECT_EQ(child.line(), "ended");
  EXPECT_EQ(child.wait(), 0);
}

}  // namespace
}  // namespace collage::base
