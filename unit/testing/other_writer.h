#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "unit/testing/fake_api_server.h"

namespace collage::testing {

// Another controller is faster, once: it changes the object when our first write of it (not of its status)
// has been sent and is not done.
inline void write_before_ours(FakeApiServer& api, const kube::Resource& resource, const std::string& key,
                              const std::function<void(base::Json&)>& change) {
  auto done = std::make_shared<std::atomic<bool>>(false);
  api.on_request([=, &api, &resource](const ApiRequest& request) {
    const bool meant = (request.verb == "patch" || request.verb == "update") &&
                       request.resource == resource.plural && request.name == key &&
                       request.subresource.empty();
    if (meant && !done->exchange(true)) api.update(resource, key, change);
    return Fault{};
  });
}

inline void add_finalizer(base::Json& object) {
  base::Json& finalizers = object["metadata"]["finalizers"];
  if (!finalizers.is_array()) finalizers = base::Json::array();
  finalizers.insert(finalizers.begin(), "theirs");
}

}  // namespace collage::testing
