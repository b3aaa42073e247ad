#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "unit/testing/temp_dir.h"

// Holds every #include against the house of docs/design.md, "The house: arrows only point down".
namespace collage {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Include {
  std::string path;
  bool quoted = false;
};

bool is_header(const std::string& file) {
  return !file.ends_with(".cpp");
}

// "drivers/local/driver.cpp" -> "drivers/local"; the parts are the rows of the table below.
std::string part_of(const std::string& file) {
  const fs::path path(file);
  const std::string first = path.begin()->string();
  if (first == "drivers") {
    if (path.filename().stem() == "registry") return "registry";
    const std::string folder = path.parent_path().string();
    return folder == "drivers" ? "port" : folder;
  }
  if (first == "operator") {
    if (file == "operator/main.cpp") return "main";
    return std::next(path.begin())->string();
  }
  return first;
}

// What a part may include besides itself. Nothing is said of unit and roles: they may include everything.
const std::map<std::string, std::set<std::string>>& house() {
  static const std::map<std::string, std::set<std::string>> table = {
      {"base", {}},
      {"port", {"base"}},
      {"kube", {"base"}},
      {"engine", {"port", "base"}},
      {"mount", {"port", "base"}},
      {"node", {"mount", "port", "base"}},
      {"csi", {"engine", "node", "proto", "port", "base"}},
      {"docker", {"engine", "node", "port", "base"}},
      {"reconcile", {"kube", "engine", "node's ports", "port", "base"}},
      {"cli", {"kube", "engine", "reconcile", "registry", "port", "base"}},
      {"proto", {}},
      {"main", {"roles", "base"}},
  };
  return table;
}

// The interfaces of operator/node that others implement or call without the node's code.
const std::set<std::string> kNodePorts = {"operator/node/agent.h"};

// Libraries that stay behind an interface of ours, and who holds them.
struct Guarded {
  const char* prefix;
  bool (*allowed)(const std::string& file);
  const char* where;
};
const Guarded kGuarded[] = {
    {"cpprest/", [](const std::string& f) { return f == "base/http_client.cpp"; }, "base/http_client.cpp"},
    {"pplx/", [](const std::string& f) { return f == "base/http_client.cpp"; }, "base/http_client.cpp"},
    {"boost/", [](const std::string& f) { return f == "base/http_client.cpp"; }, "base/http_client.cpp"},
    {"httplib.h", [](const std::string& f) { return f == "base/http_server.cpp"; }, "base/http_server.cpp"},
    {"spdlog/", [](const std::string& f) { return f == "base/log.cpp"; }, "base/log.cpp"},
    {"yaml-cpp/", [](const std::string& f) { return f == "base/yaml.cpp"; }, "base/yaml.cpp"},
    {"prometheus/", [](const std::string& f) { return f == "base/metrics.cpp"; }, "base/metrics.cpp"},
    {"grpc", [](const std::string& f) { return part_of(f) == "csi" || part_of(f) == "roles"; },
     "operator/csi"},
    {"CLI/",
     [](const std::string& f) { return !is_header(f) && (part_of(f) == "roles" || part_of(f) == "cli"); },
     ".cpp files of operator/roles and operator/cli"},
    {"blkid/", [](const std::string& f) { return part_of(f) == "mount"; }, "operator/mount"},
    {"libmount/", [](const std::string& f) { return part_of(f) == "mount"; }, "operator/mount"},
    // The mount helper is a program of its own, every file of which looks inside JSON.
    {"nlohmann/json.hpp",
     [](const std::string& f) {
       return !is_header(f) || f.starts_with("base/") || f.starts_with("operator/mount/helper/");
     },
     ".cpp files; a header declares with base/json.h"},
};

bool ours(const std::string& include) {
  for (const char* folder : {"base/", "drivers/", "operator/", "unit/"}) {
    if (include.starts_with(folder)) return true;
  }
  return false;
}

bool may_include(const std::string& file, const std::string& include) {
  const std::string from = part_of(file), to = part_of(include);
  if (from == "roles" || from == "unit") return true;
  if (from == to) return true;
  if (from == "registry") return to == "port" || to == "base" || to.starts_with("drivers/");
  // A kind of driver, and what several kinds share.
  if (from.starts_with("drivers/"))
    return to == "port" || to == "base" || (to == "drivers/store" && from != to);
  const auto row = house().find(from);
  if (row == house().end()) return false;
  if (to == "node" && row->second.contains("node's ports")) return kNodePorts.contains(include);
  return row->second.contains(to);
}

// Why `file` may not include `include`, or nothing.
std::optional<std::string> objection(const std::string& file, const Include& include) {
  const std::string says = file + " includes " + include.path;
  if (!file.starts_with("unit/")) {
    for (const Guarded& library : kGuarded) {
      if (include.path.starts_with(library.prefix) && !library.allowed(file)) {
        return says + ", which belongs in " + library.where;
      }
    }
  }
  if (ours(include.path) != include.quoted && ours(include.path)) return says + " in angle brackets";
  if (include.path.find("..") != std::string::npos) return says + ": paths start at the root";
  if (!ours(include.path) || may_include(file, include.path)) return std::nullopt;
  return says + ": " + part_of(file) + " may not include " + part_of(include.path);
}

using Tree = std::map<std::string, std::vector<Include>>;

// `# include "x"` or <x>, or nothing.
std::optional<Include> parse_include(std::string line) {
  std::erase_if(line, [](unsigned char c) { return std::isspace(c) != 0; });
  if (!line.starts_with("#include") || line.size() < 10) return std::nullopt;
  const bool quoted = line[8] == '"';
  if (!quoted && line[8] != '<') return std::nullopt;
  const size_t end = line.find(quoted ? '"' : '>', 9);
  if (end == std::string::npos) return std::nullopt;
  return Include{line.substr(9, end - 9), quoted};
}

Tree read_tree(const fs::path& root) {
  Tree tree;
  for (const char* top : {"base", "drivers", "operator", "unit"}) {
    if (!fs::exists(root / top)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string extension = entry.path().extension();
      if (!entry.is_regular_file() || (extension != ".h" && extension != ".cpp" && extension != ".inl"))
        continue;
      std::vector<Include>& includes = tree[fs::relative(entry.path(), root).string()];
      std::ifstream in(entry.path());
      for (std::string line; std::getline(in, line);) {
        if (auto include = parse_include(line)) includes.push_back(*std::move(include));
      }
    }
  }
  return tree;
}

std::vector<std::string> objections(const Tree& tree) {
  std::vector<std::string> found;
  for (const auto& [file, includes] : tree) {
    for (const Include& include : includes) {
      if (const auto why = objection(file, include)) found.push_back(*why);
      // Generated from .proto files.
      const bool generated = include.path.ends_with(".pb.h");
      if (ours(include.path) && !generated && !tree.contains(include.path)) {
        found.push_back(file + " includes " + include.path + ", which does not exist");
      }
    }
  }
  return found;
}

// Depth first from `file`; answers the first circle found as "a -> b -> a".
std::optional<std::string> circle(const Tree& tree, const std::string& file, std::vector<std::string>& path,
                                  std::set<std::string>& done) {
  if (const auto again = std::find(path.begin(), path.end(), file); again != path.end()) {
    std::string text;
    for (auto at = again; at != path.end(); ++at) text += *at + " -> ";
    return text + file;
  }
  if (done.contains(file) || !tree.contains(file)) return std::nullopt;
  path.push_back(file);
  for (const Include& include : tree.at(file)) {
    // An .inl completes the header that includes it, and may name that header.
    if (file.ends_with(".inl") && fs::path(include.path).stem() == fs::path(file).stem()) continue;
    if (auto found = circle(tree, include.path, path, done)) return found;
  }
  path.pop_back();
  done.insert(file);
  return std::nullopt;
}

std::optional<std::string> any_circle(const Tree& tree) {
  std::set<std::string> done;
  for (const auto& [file, includes] : tree) {
    std::vector<std::string> path;
    if (auto found = circle(tree, file, path, done)) return found;
  }
  return std::nullopt;
}

void plant(const testing::TempDir& root, const std::string& file, const std::string& line) {
  fs::create_directories(fs::path(root / file).parent_path());
  std::ofstream(root / file, std::ios::app) << "#pragma once\n" << line << "\n";
}

TEST(Layering, EveryIncludePointsDown) {
  const Tree tree = read_tree(COLLAGE_SOURCE_DIR);
  ASSERT_GT(tree.size(), 40u) << "the tree was not found";
  EXPECT_THAT(objections(tree), IsEmpty());
}

TEST(Layering, HasNoCircles) {
  EXPECT_EQ(any_circle(read_tree(COLLAGE_SOURCE_DIR)), std::nullopt);
}

struct Case {
  const char* file;
  const char* include;
};

TEST(Layering, RefusesWhatTheTableForbids) {
  const Case forbidden[] = {
      {"base/json.cpp", "drivers/driver.h"},
      {"base/json.cpp", "operator/kube/client.h"},
      {"drivers/driver.h", "operator/engine/names.h"},
      {"drivers/driver.h", "drivers/local/local_driver.h"},
      {"drivers/local/local_driver.cpp", "drivers/image/image_driver.h"},
      {"drivers/local/local_driver.cpp", "drivers/registry.h"},
      {"operator/kube/client.cpp", "drivers/driver.h"},
      {"operator/kube/client.cpp", "operator/engine/names.h"},
      {"operator/engine/names.cpp", "operator/kube/client.h"},
      {"operator/engine/backends.cpp", "drivers/registry.h"},
      {"operator/engine/backends.cpp", "drivers/local/local_driver.h"},
      {"operator/mount/mounter.cpp", "operator/node/journal.h"},
      {"operator/node/journal.cpp", "operator/kube/client.h"},
      {"operator/node/journal.cpp", "operator/engine/names.h"},
      {"operator/csi/node_service.cpp", "operator/kube/client.h"},
      {"operator/csi/node_service.cpp", "operator/mount/mounter.h"},
      {"operator/reconcile/provision.cpp", "operator/node/journal.h"},
      {"operator/reconcile/provision.cpp", "operator/csi/node_service.h"},
      {"operator/reconcile/provision.cpp", "drivers/registry.h"},
      {"operator/roles_are_no_place/x.cpp", "base/json.h"},
      {"operator/main.cpp", "operator/kube/client.h"},
      {"operator/kube/client.cpp", "unit/testing/fake_clock.h"},
  };
  for (const Case& c : forbidden)
    EXPECT_TRUE(objection(c.file, {c.include, true})) << c.file << " " << c.include;
}

TEST(Layering, AllowsWhatTheTableAllows) {
  const Case allowed[] = {
      {"drivers/driver.h", "base/status.h"},
      {"drivers/local/local_driver.cpp", "drivers/driver.h"},
      {"drivers/local/local_driver.cpp", "drivers/store/image_store.h"},
      {"drivers/registry.cpp", "drivers/local/local_driver.h"},
      {"operator/engine/backends.cpp", "drivers/driver.h"},
      {"operator/reconcile/provision.cpp", "operator/node/agent.h"},
      {"operator/reconcile/provision.cpp", "operator/kube/client.h"},
      {"operator/node/journal.cpp", "operator/mount/mounter.h"},
      {"operator/csi/node_service.cpp", "operator/proto/csi.grpc.pb.h"},
      {"operator/roles/node_role.cpp", "drivers/registry.h"},
      {"operator/main.cpp", "operator/roles/operator_role.h"},
      {"operator/main.cpp", "base/process.h"},
      {"unit/node/journal_test.cpp", "operator/node/journal.h"},
  };
  for (const Case& c : allowed) EXPECT_EQ(objection(c.file, {c.include, true}), std::nullopt);
}

TEST(Layering, KeepsLibrariesBehindTheirAdapters) {
  const Case forbidden[] = {
      {"base/http_server.cpp", "cpprest/http_client.h"},
      {"operator/kube/client.cpp", "pplx/pplxtasks.h"},
      {"base/http_client.cpp", "httplib.h"},
      {"operator/kube/client.cpp", "spdlog/spdlog.h"},
      {"operator/engine/x.cpp", "yaml-cpp/yaml.h"},
      {"operator/node/x.cpp", "prometheus/counter.h"},
      {"operator/node/x.cpp", "grpcpp/grpcpp.h"},
      {"operator/roles/flags.h", "CLI/CLI.hpp"},
      {"operator/kube/client.h", "nlohmann/json.hpp"},
      {"operator/kube/informer.inl", "nlohmann/json.hpp"},
      {"operator/node/x.cpp", "blkid/blkid.h"},
  };
  for (const Case& c : forbidden)
    EXPECT_TRUE(objection(c.file, {c.include, false})) << c.file << " " << c.include;
  const Case allowed[] = {
      {"base/http_client.cpp", "cpprest/http_client.h"}, {"operator/kube/client.cpp", "nlohmann/json.hpp"},
      {"operator/csi/server.h", "grpcpp/grpcpp.h"},      {"operator/roles/flags.cpp", "CLI/CLI.hpp"},
      {"unit/base/http_client_test.cpp", "httplib.h"},
  };
  for (const Case& c : allowed) EXPECT_EQ(objection(c.file, {c.include, false}), std::nullopt);
}

TEST(Layering, CatchesAPlantedIncludeOnDisk) {
  testing::TempDir root;
  plant(root, "base/a.h", "#include <string>");
  plant(root, "drivers/driver.h", "#include \"base/a.h\"");
  ASSERT_THAT(objections(read_tree(root.path())), IsEmpty());
  plant(root, "base/a.h", "  #  include \"drivers/driver.h\"");
  plant(root, "drivers/driver.h", "#include \"base/missing.h\"");
  plant(root, "drivers/other.h", "#include <base/a.h>");
  const auto found = objections(read_tree(root.path()));
  ASSERT_EQ(found.size(), 3u);
  EXPECT_THAT(found[0], HasSubstr("base may not include port"));
  EXPECT_THAT(found[1], HasSubstr("which does not exist"));
  EXPECT_THAT(found[2], HasSubstr("in angle brackets"));
}

TEST(Layering, CatchesAPlantedCircle) {
  testing::TempDir root;
  plant(root, "base/a.h", "#include \"base/b.h\"");
  plant(root, "base/b.h", "#include \"base/c.h\"");
  plant(root, "base/c.h", "");
  ASSERT_EQ(any_circle(read_tree(root.path())), std::nullopt);
  plant(root, "base/c.h", "#include \"base/a.h\"");
  EXPECT_EQ(any_circle(read_tree(root.path())), "base/a.h -> base/b.h -> base/c.h -> base/a.h");
}

}  // namespace
}  // namespace collage
