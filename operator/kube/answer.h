#pragma once

#include <chrono>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "base/http_client.h"
#include "base/json.h"

// What an answer of the API server means. Inside operator/kube only.
namespace collage::kube::detail {

// OK for 2xx, else the code of client.h's table with the server's own message.
absl::Status status_of(int http_status, std::string_view body);
// Of a Status object, as the body of an answer or as the object of a watch's ERROR event.
absl::Status status_of_object(const base::Json& status, int http_status);
// The HTTP status behind a status of the above; 0 when the server did not answer at all.
int http_status_of(const absl::Status& status);
// Of "Retry-After: <seconds>"; nullopt when there is none (dates are not used by the API server).
std::optional<std::chrono::seconds> retry_after(const base::HttpResponse& response);

}  // namespace collage::kube::detail
