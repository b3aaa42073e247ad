#pragma once

#include <string>
#include <variant>
#include <vector>

#include "base/secret.h"

// How a node reaches an attached volume. A driver describes, a mounter (operator/mount) does. The variant is
// closed: a new alternative is a new mounter.
namespace collage::drivers {

// A block device of the node, found by any of these.
struct BlockDevice {
  std::string serial;
  std::vector<std::string> by_id;  // names below /dev/disk/by-id
};

// An image file that the node reaches as a file; made a block device through a loop device. The directory
// that it lies in has the volume's name, the last part of its id: so a node whose journal is lost finds the
// device.
struct LoopFile {
  std::string path;
};

// A directory of the node, bind mounted.
struct Directory {
  std::string path;
};

struct NfsExport {
  std::vector<std::string> servers;
  std::string path;
  std::vector<std::string> options;
};

struct SecretFile {
  std::string name;
  base::Secret content;
};

struct FuseProcess {
  std::string program;
  std::vector<std::string> arguments;
  std::vector<SecretFile> secret_files;
};

using Access = std::variant<BlockDevice, LoopFile, Directory, NfsExport, FuseProcess>;

}  // namespace collage::drivers
