#pragma once

#include <string>
#include <string_view>

namespace collage::kube::detail {

// The JSON text of an object, or of a watch's event, without metadata.managedFields, which is about half of
// an object and never looked at: it is cut out before a parser makes a tree of it. Text that is not JSON
// stays as it is, for the parser to refuse.
std::string without_managed_fields(std::string_view text);

}  // namespace collage::kube::detail
