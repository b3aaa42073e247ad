#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace collage::engine {

// spec.operations and status.operations of a StorageNode are lists of texts, each a JSON object:
//   operation  {"id", "backend", "verb", "arguments"}   answer  {"id", "code", "message", "result"}
// A text, since the API server takes an object apart a dozen times for each write, and a text it only copies.
// For the same reason many of them are one text: "zlib:" and, in base64, a JSON array of these objects,
// compressed (RFC 1950). They are much alike: it is a tenth as long.
constexpr std::string_view kOperations = "/spec/operations";
constexpr std::string_view kAnswers = "/status/operations";

// The longest of these texts, in bytes: crds/storagenodes.yaml has the same. The API server would refuse the
// whole list for one that is longer.
constexpr size_t kMaxOperationText = 256 << 10;

// The list to write for these objects (as JSON, each at most kMaxOperationText). A few stay legible.
base::Json list_of(const std::vector<std::string>& objects);

// The objects of one of the lists. What is none is left out and, once for each such text, logged: by the
// reason alone, since arguments and results may hold anything.
std::vector<base::Json> operations_in(const base::Json& storage_node, std::string_view list);

// Both have the same list: what is neither there is the same, too.
bool same_list(const base::Json& one, const base::Json& other, std::string_view list);

}  // namespace collage::engine
