#include "operator/kube/managed_fields.h"

namespace collage::kube::detail {
namespace {

// As the API server writes it. Inside a string the quotes would be escaped, so that this is always a key; no
// object that is read here has a list of that name elsewhere.
constexpr std::string_view kKey = "\"managedFields\":[";

// The end of the list that begins before `at`; npos when there is none.
size_t end_of_list(std::string_view text, size_t at) {
  for (int depth = 1; at < text.size(); ++at) {
    switch (text[at]) {
      case '"':
        for (++at; at < text.size() && text[at] != '"'; ++at) at += text[at] == '\\';
        break;
      case '[':
      case '{':
        ++depth;
        break;
      case ']':
      case '}':
        if (--depth == 0) return at + 1;
        break;
    }
  }
  return std::string_view::npos;
}

}  // namespace

std::string without_managed_fields(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (true) {
    size_t begin = text.find(kKey);
    size_t end = begin == std::string_view::npos ? begin : end_of_list(text, begin + kKey.size());
    if (end == std::string_view::npos) return result.append(text);
    // With one of the commas around it.
    if (begin > 0 && text[begin - 1] == ',') {
      --begin;
    } else if (end < text.size() && text[end] == ',') {
      ++end;
    }
    result.append(text.substr(0, begin));
    text.remove_prefix(end);
  }
}

}  // namespace collage::kube::detail
