#pragma once

#include <string>

#include "base/json.h"

namespace collage::testing {

// "a=b,c!=d,e in (x,y),f notin (z),g,!h" against metadata.labels; "" matches everything.
bool matches_labels(const base::Json& object, const std::string& selector);
// "metadata.name=x,spec.nodeName!=y": any field of strings, "" where it is missing.
bool matches_fields(const base::Json& object, const std::string& selector);

}  // namespace collage::testing
