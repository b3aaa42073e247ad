#pragma once

#include <memory>
#include <string>
#include <vector>

#include "unit/reconcile/cluster.h"
#include "unit/reconcile/cutter.h"
#include "unit/testing/oracle.h"

namespace collage::testing {

// kImage and kLocal: the real drivers, on nodes that answer at once. kNodes: the fake one, through
// StorageNodes. kOwned: the fake one, whose volumes are all on node-a.
enum class Store { kFake, kImage, kLocal, kNodes, kOwned };
std::string to_string(Store store);

// The life of claim "data" on two nodes, phase by phase: what users and kubelet do, and how it shows that the
// operator has done its part.
class Life {
 public:
  enum class Phase { kProvision, kAttach, kDetach, kDelete };
  static std::vector<Phase> phases_of(Store store);
  static std::string to_string(Phase phase);

  // What happens while no operator runs.
  enum class Meanwhile {
    kNothing,
    kDeleted,  // the pod's attachment and the claim
    kRenewed,  // and a claim of the same name is made
  };

  explicit Life(Store store);
  ~Life();

  void begin(Phase phase);  // the user's part
  bool done(Phase phase);   // the operator's
  // Both. False when it does not come to its end, or the oracle objects: said as a failure.
  bool live(Phase phase);
  bool live_until(Phase phase);  // all before it
  void happens(Meanwhile what);
  bool nodes_are_idle() const;  // no operation is asked for, none is answered
  // Has the operator done its part after that?
  bool settled_already(Meanwhile what, Phase phase);
  bool settled(Meanwhile what, Phase phase);  // waits for it; otherwise as live()
  // As a failure: what the oracle says is wrong.
  bool nothing_is_wrong();
  bool nothing_is_wrong_at_rest();

  Cluster cluster;
  Cutter cutter;

 private:
  struct Backing;  // what the storage is made of
  void make_file_stores();
  void start_agents();
  std::string csi_driver() const;
  std::string volume() const;  // the PersistentVolume's name
  void put_claim();
  void remove_attachment();
  bool attached() const;
  bool is_gone() const;
  bool report(const std::vector<std::string>& wrongs);

  const Store store_;
  std::string uid_ = "uid-data";
  std::unique_ptr<Backing> backing_;
  std::unique_ptr<Oracle> oracle_;
};

}  // namespace collage::testing
