#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

// Debian builds Abseil with a string_view type of its own, which does not convert from or to the standard
// one.
namespace collage::base {

inline absl::string_view absl_view(std::string_view text) {
  return {text.data(), text.size()};
}
inline std::string_view std_view(absl::string_view text) {
  return {text.data(), text.size()};
}

template <typename T>
decltype(auto) as_abseil_argument(const T& value) {
  if constexpr (std::is_same_v<T, std::string_view>) {
    return absl_view(value);
  } else {
    return (value);
  }
}

// absl::StrCat that takes std::string_view as well.
template <typename... T>
std::string cat(const T&... values) {
  return absl::StrCat(as_abseil_argument(values)...);
}

}  // namespace collage::base
