#include "unit/testing/oracle.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "operator/engine/names.h"
#include "operator/kube/resource.h"

namespace collage::testing {

using base::get_string;
using base::Json;
using drivers::Volume;

namespace {

constexpr char kBackend[] = "fast";

bool is_deleting(const Json& object) {
  return !get_string(object, "/metadata/deletionTimestamp").empty();
}

bool has_finalizer(const Json& object, std::string_view prefix) {
  const Json* list = base::find(object, "/metadata/finalizers");
  if (list == nullptr) return false;
  return std::any_of(list->begin(), list->end(),
                     [&](const Json& name) { return name.get<std::string>().starts_with(prefix); });
}

std::string handle_of(const Volume& volume) {
  return drivers::volume_handle(kBackend, volume.id);
}

}  // namespace

struct Oracle::Facts {
  std::vector<Volume> volumes;
  std::vector<Json> objects, attachments, claims;  // PersistentVolumes, ...
  std::set<std::string> intents;                   // claim uids

  const Json* object(const std::string& name) const { return find_named(objects, name); }
  const Json* object_of(const Volume& volume) const {
    const auto found = std::find_if(objects.begin(), objects.end(), [&](const Json& object) {
      return get_string(object, "/spec/csi/volumeHandle") == handle_of(volume);
    });
    return found == objects.end() ? nullptr : &*found;
  }
  const Volume* volume_of(const Json& object) const {
    const auto found = std::find_if(volumes.begin(), volumes.end(), [&](const Volume& volume) {
      return handle_of(volume) == get_string(object, "/spec/csi/volumeHandle");
    });
    return found == volumes.end() ? nullptr : &*found;
  }
  static const Json* find_named(const std::vector<Json>& list, const std::string& name) {
    const auto found = std::find_if(list.begin(), list.end(), [&](const Json& object) {
      return get_string(object, "/metadata/name") == name;
    });
    return found == list.end() ? nullptr : &*found;
  }
};

Oracle::Facts Oracle::look() const {
  Facts facts;
  facts.volumes = storage_.volumes();
  facts.objects = api_.list(kube::kPersistentVolumes);
  facts.attachments = api_.list(kube::kVolumeAttachments);
  facts.claims = api_.list(kube::kPersistentVolumeClaims);
  const auto intents = api_.get(kube::kConfigMaps, "collage/collage-intents-fast");
  if (const Json* data = intents ? base::find(*intents, "/data") : nullptr) {
    for (const auto& [uid, record] : data->items()) facts.intents.insert(uid);
  }
  return facts;
}

void Oracle::applications_write() {
  const Facts facts = look();
  for (const Json& claim : facts.claims) {
    if (get_string(claim, "/status/phase") != "Bound") continue;
    const Json* object = facts.object(get_string(claim, "/spec/volumeName"));
    const Volume* volume = object == nullptr ? nullptr : facts.volume_of(*object);
    if (volume == nullptr) continue;  // wrongs() says so
    const std::string uid = get_string(claim, "/metadata/uid");
    if (written_.contains(uid)) continue;
    written_[uid] = absl::StrCat("the data of claim ", uid);
    storage_.write(*volume, written_[uid]);
  }
}

std::vector<std::string> Oracle::wrongs() const {
  const Facts facts = look();
  std::vector<std::string> wrongs;
  check_volumes(facts, wrongs);
  check_attachments(facts, wrongs);
  check_claims(facts, wrongs);
  return wrongs;
}

std::vector<std::string> Oracle::wrongs_at_rest() const {
  std::vector<std::string> all = wrongs();
  check_rest(look(), all);
  return all;
}

void Oracle::check_volumes(const Facts& facts, std::vector<std::string>& wrongs) const {
  for (const Volume& volume : facts.volumes) {
    const bool intended = facts.intents.contains(engine::claim_uid_of(volume.name));
    if (facts.object_of(volume) == nullptr && !intended)
      wrongs.push_back(absl::StrCat("leaked: volume ", volume.id, " has no PersistentVolume and no intent"));
  }
}

void Oracle::check_attachments(const Facts& facts, std::vector<std::string>& wrongs) const {
  for (const Volume& volume : facts.volumes) {
    if (volume.attached_to.empty()) continue;
    const Json* object = facts.object_of(volume);
    const std::string name = object == nullptr ? "" : get_string(*object, "/metadata/name");
    const bool known =
        std::any_of(facts.attachments.begin(), facts.attachments.end(), [&](const Json& attachment) {
          return get_string(attachment, "/spec/source/persistentVolumeName") == name &&
                 get_string(attachment, "/metadata/annotations/csi.alpha.kubernetes.io~1node-id") ==
                     volume.attached_to &&
                 has_finalizer(attachment, "external-attacher/");
        });
    if (!known)
      wrongs.push_back(absl::StrCat("leaked: volume ", volume.id, " is attached to ", volume.attached_to,
                                    " and no VolumeAttachment of ours says so"));
  }
  for (const Json& attachment : facts.attachments) {
    if (!base::get_bool(attachment, "/status/attached") || is_deleting(attachment)) continue;
    const Json* object = facts.object(get_string(attachment, "/spec/source/persistentVolumeName"));
    const Volume* volume = object == nullptr ? nullptr : facts.volume_of(*object);
    if (volume == nullptr || volume->attached_to.empty())
      wrongs.push_back(absl::StrCat("lost: VolumeAttachment ", get_string(attachment, "/metadata/name"),
                                    " is marked attached, the storage says otherwise"));
  }
}

void Oracle::check_claims(const Facts& facts, std::vector<std::string>& wrongs) const {
  for (const Json& claim : facts.claims) {
    if (get_string(claim, "/status/phase") != "Bound") continue;
    const std::string name = get_string(claim, "/metadata/name");
    const Json* object = facts.object(get_string(claim, "/spec/volumeName"));
    if (object == nullptr) {
      wrongs.push_back(absl::StrCat("lost: the PersistentVolume of claim ", name));
      continue;
    }
    const Volume* volume = facts.volume_of(*object);
    if (volume == nullptr) {
      wrongs.push_back(absl::StrCat("lost: the volume of claim ", name));
      continue;
    }
    const auto content = written_.find(get_string(claim, "/metadata/uid"));
    if (content != written_.end() && storage_.read(*volume) != content->second)
      wrongs.push_back(absl::StrCat("lost: what the application wrote to the volume of claim ", name));
  }
}

void Oracle::check_rest(const Facts& facts, std::vector<std::string>& wrongs) const {
  for (const std::string& uid : facts.intents)
    wrongs.push_back(absl::StrCat("leaked: the intent of claim ", uid, " stays"));
  std::map<std::string, int> by_name, by_claim;
  for (const Volume& volume : facts.volumes) {
    if (++by_name[volume.name] == 2) wrongs.push_back(absl::StrCat("doubled: volume ", volume.name));
    const auto tag = volume.tags.find(drivers::kTagClaim);
    if (tag != volume.tags.end() && ++by_claim[tag->second] == 2)
      wrongs.push_back(absl::StrCat("doubled: two volumes of claim ", tag->second));
  }
  for (const Json& object : facts.objects) {
    const std::string name = get_string(object, "/metadata/name");
    if (facts.volume_of(object) == nullptr)
      wrongs.push_back(absl::StrCat("lost: the volume of PersistentVolume ", name));
    const bool wanted = get_string(object, "/status/phase") == "Bound" && !is_deleting(object);
    if (!wanted) wrongs.push_back(absl::StrCat("leaked: PersistentVolume ", name, " stays, unwanted"));
  }
  for (const Json& attachment : facts.attachments) {
    const std::string name = get_string(attachment, "/metadata/name");
    if (is_deleting(attachment)) wrongs.push_back(absl::StrCat("leaked: VolumeAttachment ", name, " stays"));
    if (!is_deleting(attachment) && !base::get_bool(attachment, "/status/attached"))
      wrongs.push_back(absl::StrCat("lost: VolumeAttachment ", name, " was never marked attached"));
  }
  for (const Json& claim : facts.claims) {
    if (get_string(claim, "/status/phase") != "Bound")
      wrongs.push_back(absl::StrCat("lost: claim ", get_string(claim, "/metadata/name"), " is not Bound"));
  }
}

}  // namespace collage::testing
