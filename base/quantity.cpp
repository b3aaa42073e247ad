#include "base/quantity.h"

#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "base/strings.h"

namespace collage::base {
namespace {

using Wide = unsigned __int128;

constexpr Wide kMaxMagnitude = Wide(1) << 63;  // of int64's least value
constexpr size_t kMaxLength = 100;             // of the text: nobody writes a longer number
constexpr size_t kFractionDigits = 18;

absl::Status not_a_quantity(std::string_view text) {
  return absl::InvalidArgumentError(
      cat("\"", text, "\" is not a quantity; write for example 10Gi, 1500Mi or 1e9"));
}

absl::Status out_of_range(std::string_view text) {
  return absl::OutOfRangeError(cat("\"", text, "\" is beyond the largest size, 8Ei"));
}

struct Scale {
  int binary = 0;   // powers of two
  int decimal = 0;  // powers of ten
};

// Exponents are bounded: whatever is beyond is out of range or rounds up to one anyway.
bool parse_scale(std::string_view suffix, Scale* scale) {
  static constexpr struct {
    std::string_view suffix;
    Scale scale;
  } kSuffixes[] = {{"", {}},        {"n", {0, -9}},  {"u", {0, -6}},  {"m", {0, -3}},
                   {"k", {0, 3}},   {"M", {0, 6}},   {"G", {0, 9}},   {"T", {0, 12}},
                   {"P", {0, 15}},  {"E", {0, 18}},  {"Ki", {10, 0}}, {"Mi", {20, 0}},
                   {"Gi", {30, 0}}, {"Ti", {40, 0}}, {"Pi", {50, 0}}, {"Ei", {60, 0}}};
  for (const auto& known : kSuffixes) {
    if (known.suffix == suffix) {
      *scale = known.scale;
      return true;
    }
  }
  if (suffix.front() != 'e' && suffix.front() != 'E') return false;
  suffix.remove_prefix(1);
  const std::string_view number =
      suffix.starts_with('+') || suffix.starts_with('-') ? suffix.substr(1) : suffix;
  if (number.empty() || number.size() > 3 ||
      number.find_first_not_of("0123456789") != std::string_view::npos) {
    return false;
  }
  return absl::SimpleAtoi(absl_view(suffix), &scale->decimal);
}

// Digits as a number; false when it exceeds the limit.
bool accumulate(std::string_view digits, Wide limit, Wide* value) {
  for (const char c : digits) {
    *value = *value * 10 + (c - '0');
    if (*value > limit) return false;
  }
  return true;
}

// The magnitude of whole.fraction scaled, rounded up; false when beyond the limit. What is beyond 18
// digits of a fraction only rounds up.
bool scale_up(std::string whole, std::string fraction, Scale scale, Wide* value) {
  for (; scale.decimal > 0; --scale.decimal) {  // the point moves right
    whole += fraction.empty() ? '0' : fraction.front();
    if (!fraction.empty()) fraction.erase(0, 1);
    if (whole.size() > 2 * kMaxLength) {
      whole.erase(0, whole.find_first_not_of('0'));
      if (whole.size() > kMaxLength) return false;
    }
  }
  for (; scale.decimal < 0; ++scale.decimal) {  // and left
    fraction.insert(fraction.begin(), whole.empty() ? '0' : whole.back());
    if (!whole.empty()) whole.pop_back();
  }
  bool sticky = false;
  if (fraction.size() > kFractionDigits) {
    sticky = fraction.find_first_not_of('0', kFractionDigits) != std::string::npos;
    fraction.resize(kFractionDigits);
  }
  Wide integer = 0;
  if (!accumulate(whole, kMaxMagnitude >> scale.binary, &integer)) return false;
  Wide part = 0, one = 1;
  for (const char c : fraction) {
    part = part * 10 + (c - '0');
    one *= 10;
  }
  part <<= scale.binary;  // at most 10^18 * 2^60 < 2^120
  *value = (integer << scale.binary) + part / one + (part % one != 0 || sticky ? 1 : 0);
  return *value <= kMaxMagnitude;
}

}  // namespace

absl::StatusOr<int64_t> parse_quantity(std::string_view text) {
  std::string_view rest = text;
  const bool negative = rest.starts_with('-');
  if (negative || rest.starts_with('+')) rest.remove_prefix(1);
  if (rest.size() > kMaxLength) return not_a_quantity(text.substr(0, kMaxLength));
  const size_t end = std::min(rest.find_first_not_of("0123456789."), rest.size());
  const std::string_view number = rest.substr(0, end);
  const size_t dot = std::min(number.find('.'), number.size());
  const std::string whole(number.substr(0, dot));
  const std::string fraction(dot < number.size() ? number.substr(dot + 1) : "");
  Scale scale;
  if ((whole.empty() && fraction.empty()) || fraction.find('.') != std::string::npos ||
      !parse_scale(rest.substr(end), &scale)) {
    return not_a_quantity(text);
  }
  Wide value = 0;
  if (whole.find_first_not_of('0') != std::string::npos ||
      fraction.find_first_not_of('0') != std::string::npos) {
    if (!scale_up(whole, fraction, scale, &value)) return out_of_range(text);
  }
  if (negative) {
    return value == kMaxMagnitude ? std::numeric_limits<int64_t>::min() : -static_cast<int64_t>(value);
  }
  if (value >= kMaxMagnitude) return out_of_range(text);
  return static_cast<int64_t>(value);
}

std::string format_quantity(int64_t bytes) {
  static constexpr const char* kSuffixes[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
  int power = 0;
  while (bytes != 0 && bytes % 1024 == 0 && power < 6) {
    bytes /= 1024;
    ++power;
  }
  return cat(bytes, kSuffixes[power]);
}

std::string human_bytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  // 1023.95 would print as "1024.0".
  while ((value >= 1023.95 || value <= -1023.95) && unit < 6) {
    value /= 1024;
    ++unit;
  }
  std::string number = absl::StrFormat("%.1f", value);
  if (number.ends_with(".0")) number.resize(number.size() - 2);
  return cat(number, " ", kUnits[unit]);
}

}  // namespace collage::base
