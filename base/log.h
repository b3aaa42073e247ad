#pragma once

#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "base/context.h"
#include "base/secret.h"

// Structured logs: a constant message in lower case plus key=value fields; the context's fields are added.
//   log::info(context, "volume created", {{"volume", handle}, {"bytes", size}});
// Text for a person ("2026-11-22T16:56:38Z INFO  volume created volume=fast/x bytes=42") or one JSON object a
// line
// ({"time","level","message",...}). Written to stderr. Thread safe.
namespace collage::base::log {

enum class Format { kText, kJson };
enum class Level { kDebug, kInfo, kWarning, kError };

// Call once, first thing. Before it, logs are text at info.
void configure(Format format, Level level);
// Tests: every line also goes to `sink` (nullptr: stop). Not thread safe against concurrent logging.
void set_sink(void (*sink)(std::string_view line));

// A field's value: text, number, bool, status or secret (printed "***").
class Value {
 public:
  Value(std::string_view text) : text_(text) {}
  Value(const std::string& text) : text_(text) {}
  Value(const char* text) : text_(text) {}
  Value(const absl::Status& status);
  Value(const Secret&) : text_("***") {}
  Value(bool value) : text_(value ? "true" : "false"), quoted_(false) {}
  template <typename T>
  requires std::integral<T> || std::floating_point<T> Value(T number)
      : text_(std::to_string(number)), quoted_(false) {}

  const std::string& text() const { return text_; }
  bool quoted() const { return quoted_; }

 private:
  std::string text_;
  bool quoted_ = true;
};

struct Pair {
  std::string_view key;
  Value value;
};
using Pairs = std::initializer_list<Pair>;

void write(Level level, const Context& context, std::string_view message, Pairs pairs);
inline void debug(const Context& c, std::string_view message, Pairs pairs = {}) {
  write(Level::kDebug, c, message, pairs);
}
inline void info(const Context& c, std::string_view message, Pairs pairs = {}) {
  write(Level::kInfo, c, message, pairs);
}
inline void warning(const Context& c, std::string_view message, Pairs pairs = {}) {
  write(Level::kWarning, c, message, pairs);
}
inline void error(const Context& c, std::string_view message, Pairs pairs = {}) {
  write(Level::kError, c, message, pairs);
}

// What goes on for long is told when it begins, when it changes, and every half minute, however often it is
// seen. One a loop; not thread safe.
class Seldom {
 public:
  // Is `what` worth a line now?
  bool tell(const Context& context, std::string_view what);
  void forget() { what_.clear(); }

 private:
  std::string what_;
  Clock::Monotonic told_at_{};
};

}  // namespace collage::base::log
