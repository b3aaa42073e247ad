#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/context.h"

namespace collage::base {

struct Command {
  std::string program;                             // absolute path, or looked up in PATH
  std::vector<std::string> arguments;              // never a secret: anybody may read them
  std::string input;                               // written to stdin, then closed
  std::map<std::string, std::string> environment;  // added to PATH and LC_ALL=C; nothing else is inherited
  size_t max_output = 1 << 20;                     // bytes kept of each stream; the rest is read and dropped
};

struct CommandResult {
  int exit_code = 0;  // 128 + signal when killed by one
  std::string output;
  std::string error_output;
};

// Runs a program by posix_spawn (never fork without exec) with every other descriptor closed, an empty signal
// mask, default dispositions and a process group of its own, until it ends or the context does. Then the
// group is killed. DEADLINE_EXCEEDED or CANCELLED when the context ended it. If even SIGKILL does not end it
// within a second (a process in uninterruptible sleep), it is abandoned: a background thread reaps it one
// day, and `abandoned_children()` counts it meanwhile. An exit code that is not zero is not an error here:
// look at the result. NOT_FOUND when the program is missing.
absl::StatusOr<CommandResult> run_command(const Context& context, const Command& command);

int abandoned_children();

}  // namespace collage::base
