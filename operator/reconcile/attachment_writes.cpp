#include "operator/reconcile/attachment_writes.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"
#include "operator/reconcile/finalizers.h"

namespace collage::reconcile {
namespace {

using base::Json;

constexpr char kStatus[] = "status";

absl::StatusOr<Json> observed(World& world, absl::StatusOr<Json> answer) {
  if (answer.ok()) world.attachments.observe(*answer);
  return answer;
}

absl::StatusOr<Json> update(const base::Context& context, World& world, const Json& whole,
                            const std::string& subresource) {
  const kube::Key key{"", base::get_string(whole, "/metadata/name")};
  return observed(world, world.client.replace(context, kube::kVolumeAttachments, key, whole, subresource));
}

// With its UID: one of the same name that was made since is another attachment.
absl::StatusOr<Json> patch(const base::Context& context, World& world, const kube::Meta& meta, Json change,
                           const std::string& subresource) {
  change["metadata"]["uid"] = meta.uid;
  return observed(world, world.client.patch(context, kube::kVolumeAttachments, meta.key(),
                                            kube::PatchType::kMerge, change, {.subresource = subresource}));
}

absl::StatusOr<Json> take_finalizer_off(const base::Context& context, World& world,
                                        const kube::Attachment& attachment, const std::string& finalizer) {
  if (Json whole = whole_of(attachment); !whole.is_null()) {
    whole["metadata"]["finalizers"] = finalizers_without(attachment.meta, finalizer);
    absl::StatusOr<Json> answer =
        world.client.replace(context, kube::kVolumeAttachments, attachment.meta.key(), whole, "");
    if (absl::IsNotFound(answer.status())) return Json();
    if (!absl::IsAborted(answer.status())) return answer;
  }
  return remove_finalizers(context, world.client, kube::kVolumeAttachments, attachment.meta, {finalizer});
}

}  // namespace

Json whole_of(const kube::Attachment& attachment) {
  if (attachment.whole.empty()) return nullptr;
  absl::StatusOr<Json> whole = base::parse_json(attachment.whole);
  if (!whole.ok()) return nullptr;
  (*whole)["apiVersion"] = kube::kVolumeAttachments.api_version();
  (*whole)["kind"] = kube::kVolumeAttachments.kind;
  return *std::move(whole);
}

absl::StatusOr<Json> protect_attachment(const base::Context& context, World& world,
                                        const kube::Attachment& attachment, const std::string& finalizer,
                                        const Json& annotations) {
  const Json finalizers = finalizers_with(attachment.meta, {finalizer});
  absl::StatusOr<Json> answer;
  if (Json whole = whole_of(attachment); !whole.is_null()) {
    whole["metadata"]["finalizers"] = finalizers;
    whole["metadata"]["annotations"].update(annotations);
    answer = update(context, world, whole, "");
  } else {
    answer = patch(context, world, attachment.meta,
                   {{"metadata",
                     {{"resourceVersion", attachment.meta.resource_version},
                      {"finalizers", finalizers},
                      {"annotations", annotations}}}},
                   "");
  }
  if (!answer.ok()) return base::annotate(answer.status(), "protect the VolumeAttachment by a finalizer");
  return answer;
}

absl::Status say_attached(const base::Context& context, World& world, const kube::Meta& meta, Json whole,
                          const drivers::StringMap& published) {
  const Json status = {{"attached", true}, {"attachmentMetadata", published}};
  absl::StatusOr<Json> answer = absl::AbortedError("not whole");
  if (!whole.is_null()) {
    whole[kStatus] = status;
    answer = update(context, world, whole, kStatus);
  }
  if (absl::IsAborted(answer.status())) {
    Json change = {{kStatus, status}};
    change[kStatus]["attachError"] = nullptr;
    answer = patch(context, world, meta, std::move(change), kStatus);
  }
  if (!answer.ok()) return base::annotate(answer.status(), "say that the volume is attached");
  return absl::OkStatus();
}

void say_failed(const base::Context& context, World& world, const kube::Attachment& attachment,
                AttachmentStep step, const absl::Status& why) {
  const bool attaching = step == AttachmentStep::kAttach;
  const std::string message(why.message());
  if (context.stopped() || message == (attaching ? attachment.attach_error : attachment.detach_error)) return;
  // Should this not be written, the next try says it.
  patch(context, world, attachment.meta,
        {{kStatus,
          {{attaching ? "attachError" : "detachError",
            {{"message", message},
             {"time", base::rfc3339(context.clock().wall())},
             {"errorCode", static_cast<int>(why.code())}}}}}},
        kStatus)
      .IgnoreError();
}

absl::Status release_attachment(const base::Context& context, World& world,
                                const kube::Attachment& attachment, const std::string& finalizer) {
  const absl::StatusOr<Json> now = attachment.meta.has_finalizer(finalizer)
                                       ? take_finalizer_off(context, world, attachment, finalizer)
                                       : whole_of(attachment);
  COLLAGE_RETURN_IF_ERROR(now.status());
  const Json* left = now->is_null() ? nullptr : base::find(*now, "/metadata/finalizers");
  if (left == nullptr || !left->is_array() || left->empty()) return absl::OkStatus();  // nothing to write to
  world.attachments.observe(*now);
  const absl::Status status =
      patch(context, world, attachment.meta,
            {{kStatus, {{"attached", false}, {"attachmentMetadata", nullptr}, {"detachError", nullptr}}}},
            kStatus)
          .status();
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

}  // namespace collage::reconcile
