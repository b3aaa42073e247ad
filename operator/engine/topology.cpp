#include "operator/engine/topology.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/status.h"

namespace collage::engine {
namespace {

using drivers::Topology;

void sort_unique(std::vector<Topology>& terms) {
  std::sort(terms.begin(), terms.end());
  terms.erase(std::unique(terms.begin(), terms.end()), terms.end());
}

// One term of allowedTopologies as the list of segments that it stands for: every choice of one value a key.
std::vector<Topology> expand(const std::map<std::string, std::vector<std::string>>& term) {
  std::vector<Topology> segments = {{}};
  for (const auto& [key, values] : term) {
    std::vector<Topology> longer;
    longer.reserve(segments.size() * values.size());
    for (const Topology& segment : segments) {
      for (const std::string& value : values) {
        Topology next = segment;
        next[key] = value;
        longer.push_back(std::move(next));
      }
    }
    segments = std::move(longer);
  }
  return segments;
}

uint32_t fnv1a(absl::string_view text) {
  uint32_t hash = 2166136261u;
  for (unsigned char c : text) hash = (hash ^ c) * 16777619u;
  return hash;
}

// Claims of one StatefulSet ("data-web-0", "data-web-1", ...) take neighbouring places, so that they spread
// evenly; other claims are spread by their name.
uint32_t spread_index(absl::string_view claim_name) {
  const size_t dash = claim_name.rfind('-');
  uint32_t ordinal = 0;
  if (dash != absl::string_view::npos && dash + 1 < claim_name.size() &&
      std::all_of(claim_name.begin() + dash + 1, claim_name.end(), absl::ascii_isdigit) &&
      absl::SimpleAtoi(claim_name.substr(dash + 1), &ordinal)) {
    return fnv1a(claim_name.substr(0, dash)) + ordinal;
  }
  return fnv1a(claim_name);
}

std::vector<Topology> rotated(const std::vector<Topology>& terms, size_t first) {
  std::vector<Topology> result = terms;
  std::rotate(result.begin(), result.begin() + static_cast<ptrdiff_t>(first), result.end());
  return result;
}

std::string any_of(const std::vector<Topology>& terms) {
  return absl::StrJoin(terms, " or ",
                       [](std::string* out, const Topology& term) { out->append(to_string(term)); });
}

absl::Status not_allowed(const TopologyFacts& facts, const std::vector<Topology>& terms) {
  return absl::FailedPreconditionError(absl::StrCat(
      "the selected node ", facts.selected_node, " is at ", to_string(*facts.selected),
      ", the StorageClass's allowedTopologies are ", any_of(terms), ": another node must be selected"));
}

}  // namespace

bool covers(const Topology& term, const Topology& segment) {
  return std::all_of(term.begin(), term.end(), [&](const auto& entry) {
    const auto found = segment.find(entry.first);
    return found != segment.end() && found->second == entry.second;
  });
}

std::string to_string(const Topology& topology) {
  return absl::StrCat("{", absl::StrJoin(topology, ", ", absl::PairFormatter("=")), "}");
}

absl::StatusOr<TopologyRequirement> topology_requirement(const TopologyFacts& facts) {
  std::vector<Topology> terms;
  for (const auto& term : facts.allowed) {
    for (Topology& segment : expand(term)) terms.push_back(std::move(segment));
  }
  if (!facts.allowed.empty() && terms.empty()) {
    return absl::InvalidArgumentError(
        "StorageClass allowedTopologies: a key has no values: give at least one");
  }
  sort_unique(terms);

  if (facts.placement == Placement::kStrict && facts.selected) {
    const bool allowed = terms.empty() || std::any_of(terms.begin(), terms.end(), [&](const Topology& term) {
                           return covers(term, *facts.selected);
                         });
    if (!allowed) return not_allowed(facts, terms);
    return TopologyRequirement{{*facts.selected}, {*facts.selected}};
  }

  if (terms.empty()) {
    terms = facts.cluster;
    if (facts.selected) terms.push_back(*facts.selected);
    sort_unique(terms);
  }
  if (terms.empty()) {
    return absl::UnavailableError(
        "no available topology found: no node has registered the CSI driver yet; see that the node agents "
        "run (kubectl get storagenodes)");
  }
  if (!facts.selected) {
    const size_t first = spread_index(facts.claim_name) % terms.size();
    return TopologyRequirement{terms, rotated(terms, first)};
  }
  for (size_t i = 0; i < terms.size(); ++i) {
    if (covers(terms[i], *facts.selected)) return TopologyRequirement{terms, rotated(terms, i)};
  }
  return not_allowed(facts, terms);
}

}  // namespace collage::engine
