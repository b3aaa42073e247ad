#include <nlohmann/json.hpp>

#include "base/yaml.h"
#include "drivers/registry.h"
#include "operator/engine/backend_spec.h"
#include "unit/fuzz/targets.h"

namespace collage::fuzz {

void yaml_backend(std::string_view input) {
  const auto documents = base::yaml_to_json(input);
  if (!documents.ok()) {
    require(absl::IsInvalidArgument(documents.status()), "bad YAML is INVALID_ARGUMENT");
    return;
  }
  for (const base::Json& document : *documents) {
    const auto spec = engine::parse_backend_spec(document, drivers::kinds());
    if (!spec.ok()) {
      require(absl::IsInvalidArgument(spec.status()), "a bad backend is INVALID_ARGUMENT");
      require(!spec.status().message().empty(), "a refusal has a reason");
      continue;
    }
    // What was accepted comes out of JSON as it went in, and is the same backend.
    const auto again = base::parse_json(base::dump_json(document));
    require(again.ok(), "an accepted document can be written as JSON");
    const auto same = engine::parse_backend_spec(*again, drivers::kinds());
    require(same.ok() && same->name == spec->name && same->kind == spec->kind, "the same backend again");
    require(engine::check_backend_update(*spec, *same).ok(), "a backend may stay what it is");
  }
}

}  // namespace collage::fuzz
