#include "base/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/json.h"
#include "base/status.h"

namespace collage::base::log {
namespace {

std::atomic<Format> format{Format::kText};
std::atomic<Level> least{Level::kInfo};
std::atomic<void (*)(std::string_view)> extra_sink{nullptr};

// Never destroyed: threads may log while the process ends.
spdlog::logger& logger() {
  static spdlog::logger* const instance = [] {
    auto* made = new spdlog::logger("collage", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%v");
    made->set_level(spdlog::level::trace);
    return made;
  }();
  return *instance;
}

const char* word(Level level) {
  switch (level) {
    case Level::kDebug:
      return "debug";
    case Level::kInfo:
      return "info";
    case Level::kWarning:
      return "warning";
    case Level::kError:
      return "error";
  }
  return "error";
}

const char* column(Level level) {
  switch (level) {
    case Level::kDebug:
      return "DEBUG ";
    case Level::kInfo:
      return "INFO  ";
    case Level::kWarning:
      return "WARN  ";
    case Level::kError:
      return "ERROR ";
  }
  return "ERROR ";
}

std::string quote(std::string_view text) {
  return dump_json(Json(text));
}

// A value that could be mistaken for something else (a second field, a second line) is quoted.
bool needs_quotes(std::string_view text) {
  for (const unsigned char c : text) {
    if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c >= 0x7f) return true;
  }
  return text.empty();
}

bool overridden(std::string_view key, Pairs pairs) {
  for (const Pair& pair : pairs) {
    if (pair.key == key) return true;
  }
  return false;
}

template <typename Emit>
void for_each_field(const Context& context, Pairs pairs, const Emit& emit) {
  for (const Field& field : context.fields()) {
    if (!overridden(field.key, pairs)) emit(field.key, field.value, true);
  }
  for (const Pair& pair : pairs) emit(pair.key, pair.value.text(), pair.value.quoted());
}

std::string text_line(Level level, const Context& context, std::string_view message, Pairs pairs) {
  std::string line = rfc3339(context.clock().wall()) + " " + column(level);
  line += message;
  for_each_field(context, pairs, [&](std::string_view key, std::string_view value, bool) {
    line += ' ';
    line += key;
    line += '=';
    line += needs_quotes(value) ? quote(value) : std::string(value);
  });
  return line;
}

std::string json_line(Level level, const Context& context, std::string_view message, Pairs pairs) {
  std::string line = "{\"time\":\"" + rfc3339_micro(context.clock().wall()) + "\",\"level\":\"" +
                     word(level) + "\",\"message\":" + quote(message);
  for_each_field(context, pairs, [&](std::string_view key, std::string_view value, bool quoted) {
    // JSON has no word for a number that is not finite.
    const bool bare = !quoted && value.find_first_of("ni") == std::string_view::npos;
    const bool boolean = value == "true" || value == "false";
    line += ',' + quote(key) + ':' + (!quoted && (bare || boolean) ? std::string(value) : quote(value));
  });
  return line + "}";
}

}  // namespace

Value::Value(const absl::Status& status) : text_(to_string(status)) {}

void configure(Format new_format, Level level) {
  format = new_format;
  least = level;
}

void set_sink(void (*sink)(std::string_view line)) {
  extra_sink = sink;
}

void write(Level level, const Context& context, std::string_view message, Pairs pairs) {
  if (level < least.load(std::memory_order_relaxed)) return;
  const std::string line = format.load(std::memory_order_relaxed) == Format::kText
                               ? text_line(level, context, message, pairs)
                               : json_line(level, context, message, pairs);
  logger().log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
  if (auto* sink = extra_sink.load()) sink(line);
}

bool Seldom::tell(const Context& context, std::string_view what) {
  constexpr auto kAgain = std::chrono::seconds(30);
  const auto now = context.clock().now();
  if (!what_.empty() && what == what_ && now < told_at_ + kAgain) return false;
  what_ = what;
  told_at_ = now;
  return true;
}

}  // namespace collage::base::log
