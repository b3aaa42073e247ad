#include "base/yaml.h"

#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "base/strings.h"

namespace collage::base {
namespace {

constexpr size_t kMaxAliasBytes = 1 << 20;
constexpr size_t kMaxDepth = 200;

// Thrown through the library's parser, and caught in yaml_to_json.
struct Refused {
  std::string message;
};

[[noreturn]] void refuse(const YAML::Mark& mark, const std::string& why) {
  throw Refused{cat(why, " at line ", mark.line + 1, ", column ", mark.column + 1)};
}

bool one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  for (const std::string_view word : words) {
    if (text == word) return true;
  }
  return false;
}

// JSON holds nothing else. Overlong forms, surrogates and what lies beyond U+10FFFF are no UTF-8.
bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i++]);
    if (first < 0x80) continue;
    const int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4 || text.size() - i < static_cast<size_t>(more)) return false;
    uint32_t code = first & (0x3f >> more);
    for (int k = 0; k < more; ++k) {
      const auto next = static_cast<unsigned char>(text[i++]);
      if ((next & 0xc0) != 0x80) return false;
      code = code << 6 | (next & 0x3f);
    }
    const bool overlong = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
    if (overlong || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
  }
  return true;
}

bool is_null(std::string_view text) {
  return text.empty() || one_of(text, {"~", "null", "Null", "NULL"});
}

// YAML 1.1's booleans but for y and n alone, which are too often meant as letters.
std::optional<bool> bool_of(std::string_view text) {
  if (one_of(text, {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})) return true;
  if (one_of(text, {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})) return false;
  return std::nullopt;
}

bool all_digits(std::string_view text, std::string_view digits) {
  return !text.empty() && text.find_first_not_of(digits) == std::string_view::npos;
}

// The value of digits in a base, or none beyond 64 bits.
std::optional<Json> integer_of(std::string_view digits, unsigned base, bool negative) {
  uint64_t value = 0;
  for (const char c : digits) {
    const unsigned digit =
        absl::ascii_isdigit(static_cast<unsigned char>(c))
            ? static_cast<unsigned>(c - '0')
            : static_cast<unsigned>(absl::ascii_tolower(static_cast<unsigned char>(c)) - 'a' + 10);
    if (__builtin_mul_overflow(value, base, &value) || __builtin_add_overflow(value, digit, &value)) {
      return std::nullopt;
    }
  }
  if (!negative) return Json(value);
  if (value > uint64_t{1} << 63) return std::nullopt;
  return Json(static_cast<int64_t>(-value));
}

// Digits, a point or an exponent, at least one digit: what may be a decimal float.
bool looks_like_float(std::string_view text) {
  const size_t exponent = text.find_first_of("eE");
  std::string_view mantissa = text.substr(0, exponent);
  if (mantissa.find_first_not_of("0123456789.") != std::string_view::npos) return false;
  if (mantissa.find('.') != mantissa.rfind('.') ||
      mantissa.find_first_of("0123456789") == std::string_view::npos) {
    return false;
  }
  if (exponent == std::string_view::npos) return true;
  std::string_view power = text.substr(exponent + 1);
  if (power.starts_with('+') || power.starts_with('-')) power.remove_prefix(1);
  return all_digits(power, "0123456789");
}

std::optional<Json> number_of(std::string_view text) {
  std::string_view rest = text;
  const bool negative = rest.starts_with('-');
  if (negative || rest.starts_with('+')) rest.remove_prefix(1);
  std::optional<Json> integer;
  if ((rest.starts_with("0x") || rest.starts_with("0X")) &&
      all_digits(rest.substr(2), "0123456789abcdefABCDEF")) {
    return integer_of(rest.substr(2), 16, negative);
  }
  if (rest.starts_with("0o") && all_digits(rest.substr(2), "01234567"))
    return integer_of(rest.substr(2), 8, negative);
  if (all_digits(rest, "0123456789")) {
    // 0644 is octal in YAML 1.1 and in the tools of Kubernetes; 089 is no octal number and stays a decimal
    // one.
    const bool octal = rest.size() > 1 && rest.front() == '0' && all_digits(rest, "01234567");
    integer = integer_of(rest, octal ? 8 : 10, negative);
    if (integer) return integer;
  }
  double value = 0;
  // Infinities and NaN have no JSON and stay strings.
  if (!looks_like_float(rest) || !absl::SimpleAtod(absl_view(text), &value) || !std::isfinite(value)) {
    return std::nullopt;
  }
  return Json(value);
}

Json plain_scalar(const std::string& text) {
  if (is_null(text)) return nullptr;
  if (const auto boolean = bool_of(text)) return *boolean;
  if (auto number = number_of(text)) return *std::move(number);
  return text;
}

Json scalar(const YAML::Mark& mark, const std::string& tag, const std::string& text) {
  constexpr std::string_view kCore = "tag:yaml.org,2002:";
  if (tag == "?" || tag.empty()) return plain_scalar(text);
  if (tag == "!") return text;  // quoted
  if (!tag.starts_with(kCore)) refuse(mark, cat("unknown tag ", tag));
  const std::string_view type = std::string_view(tag).substr(kCore.size());
  if (type == "str") return text;
  Json value = plain_scalar(text);
  const bool fits = (type == "null" && value.is_null()) || (type == "bool" && value.is_boolean()) ||
                    (type == "int" && value.is_number_integer()) || (type == "float" && value.is_number());
  if (one_of(type, {"null", "bool", "int", "float"})) {
    if (!fits) refuse(mark, cat("\"", text, "\" is not of type ", type));
    return value;
  }
  refuse(mark, cat("unknown tag ", tag));
}

// Builds JSON from the parser's events.
class Builder : public YAML::EventHandler {
 public:
  std::vector<Json> take() { return std::move(documents_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    // What cannot begin a value (a comma) is an empty document to the library, which never gets past it.
    if (mark.pos == document_began_) refuse(mark, "a value cannot begin with this character");
    document_began_ = mark.pos;
    open_.clear();
    anchors_.clear();
    root_ = nullptr;
  }
  void OnDocumentEnd() override {
    if (!root_.is_null()) documents_.push_back(std::move(root_));
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(mark, anchor, nullptr); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    // An alias inside the node that it names is not known yet.
    if (found == anchors_.end()) refuse(mark, "an alias to a value that contains it");
    alias_bytes_ += found->second.size;
    if (alias_bytes_ > kMaxAliasBytes) refuse(mark, "aliases expand beyond 1 MiB");
    Json copy = found->second.value;
    written_ += found->second.size;
    add(mark, YAML::NullAnchor, std::move(copy), /*measured=*/true);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    // Taken for a field of that name it would be refused later, far from its cause.
    if (tag == "?" && text == "<<" && !open_.empty() && open_.back().value.is_object() && !open_.back().key) {
      refuse(mark, "merge keys (<<) are not supported: write the fields out");
    }
    if (!is_utf8(text)) refuse(mark, "what is not UTF-8");
    add(mark, anchor, scalar(mark, tag, text));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, "tag:yaml.org,2002:seq", anchor, Json::array());
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, "tag:yaml.org,2002:map", anchor, Json::object());
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    Json value;
    YAML::Mark mark;
    YAML::anchor_t anchor;
    size_t started;  // written_ when it was opened
    std::optional<std::string> key;
  };
  struct Anchored {
    Json value;
    size_t size;  // a rough count of bytes
  };

  void open(const YAML::Mark& mark, const std::string& tag, std::string_view expected, YAML::anchor_t anchor,
            Json value) {
    if (tag != "?" && !tag.empty() && tag != "!" && tag != expected) refuse(mark, cat("unknown tag ", tag));
    if (!open_.empty() && open_.back().value.is_object() && !open_.back().key) {
      refuse(mark, "a key that is not a scalar");
    }
    if (open_.size() >= kMaxDepth) refuse(mark, cat("nested deeper than ", kMaxDepth));
    open_.push_back({std::move(value), mark, anchor, written_, std::nullopt});
  }

  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    written_ += 16;
    if (done.anchor != YAML::NullAnchor) anchors_[done.anchor] = {done.value, written_ - done.started};
    place(done.mark, std::move(done.value));
  }

  // A scalar, or a copy by alias.
  void add(const YAML::Mark& mark, YAML::anchor_t anchor, Json value, bool measured = false) {
    const size_t size = 16 + (value.is_string() ? value.get_ref<const std::string&>().size() : 0);
    if (!measured) written_ += size;
    if (anchor != YAML::NullAnchor) anchors_[anchor] = {value, size};
    place(mark, std::move(value));
  }

  void place(const YAML::Mark& mark, Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return;
    }
    Open& parent = open_.back();
    if (parent.value.is_array()) {
      parent.value.push_back(std::move(value));
      return;
    }
    if (!parent.key) {
      if (value.is_structured()) refuse(mark, "a key that is not a scalar");
      // 1: and true: are the strings that JSON needs.
      parent.key = value.is_string() ? value.get<std::string>() : value.dump();
      if (parent.value.contains(*parent.key)) refuse(mark, cat("duplicate key \"", *parent.key, "\""));
      return;
    }
    parent.value[*parent.key] = std::move(value);
    parent.key.reset();
  }

  std::vector<Json> documents_;
  Json root_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, Anchored> anchors_;
  int document_began_ = -1;
  size_t written_ = 0;
  size_t alias_bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<Json>> yaml_to_json(std::string_view text) {
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    Builder builder;
    while (parser.HandleNextDocument(builder)) {
    }
    return builder.take();
  } catch (const Refused& refused) {
    return absl::InvalidArgumentError(refused.message);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        cat("not YAML: ", error.msg, " at line ", error.mark.line + 1, ", column ", error.mark.column + 1));
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(cat("not YAML: ", error.what()));
  }
}

}  // namespace collage::base
