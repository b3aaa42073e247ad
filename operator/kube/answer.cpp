#include "operator/kube/answer.h"

#include <nlohmann/json.hpp>

#include "base/strings.h"

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"

namespace collage::kube::detail {
namespace {

constexpr size_t kMaxMessage = 1024;
constexpr char kHttpStatus[] = "collage.kube/http-status";

absl::StatusCode code_of(int http_status, std::string_view reason) {
  switch (http_status) {
    case 400:
    case 413:
    case 422:
      return absl::StatusCode::kInvalidArgument;
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 405:
    case 406:
    case 415:
    case 501:
      return absl::StatusCode::kUnimplemented;
    case 409:
      return reason == "AlreadyExists" ? absl::StatusCode::kAlreadyExists : absl::StatusCode::kAborted;
    case 410:
      return absl::StatusCode::kOutOfRange;
    case 429:
      return absl::StatusCode::kResourceExhausted;
    case 504:
      return absl::StatusCode::kDeadlineExceeded;
    default:
      return http_status >= 500 ? absl::StatusCode::kUnavailable : absl::StatusCode::kInternal;
  }
}

absl::Status make_status(int http_status, std::string_view reason, std::string_view message) {
  if (message.empty()) message = reason;
  const std::string_view shown = message.substr(0, kMaxMessage);
  absl::Status status(code_of(http_status, reason), shown.empty()
                                                        ? base::cat("HTTP ", http_status)
                                                        : base::cat(shown, " (HTTP ", http_status, ")"));
  status.SetPayload(kHttpStatus, absl::Cord(std::to_string(http_status)));
  return status;
}

}  // namespace

absl::Status status_of_object(const base::Json& status, int http_status) {
  return make_status(http_status, base::get_string(status, "/reason"), base::get_string(status, "/message"));
}

absl::Status status_of(int http_status, std::string_view body) {
  if (http_status >= 200 && http_status < 300) return absl::OkStatus();
  const auto object = base::parse_json(body);
  if (object.ok() && object->is_object()) return status_of_object(*object, http_status);
  // A proxy in between, or the server before it is ready: plain text.
  return make_status(http_status, "", base::std_view(absl::StripAsciiWhitespace(base::absl_view(body))));
}

int http_status_of(const absl::Status& status) {
  const auto payload = status.GetPayload(kHttpStatus);
  int number = 0;
  return payload && absl::SimpleAtoi(std::string(*payload), &number) ? number : 0;
}

std::optional<std::chrono::seconds> retry_after(const base::HttpResponse& response) {
  const auto header = response.headers.find("retry-after");
  uint32_t seconds = 0;
  if (header == response.headers.end() || !absl::SimpleAtoi(header->second, &seconds)) return std::nullopt;
  return std::chrono::seconds(seconds);
}

}  // namespace collage::kube::detail
