package suite

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"collage/e2e/cluster"
)

// A volume goes from a node that does not let go of it to another one: only with proof, and without harm to it.

const outOfService = "node.kubernetes.io/out-of-service"

// From the disk, not from memory: what somebody else wrote below shows.
const readAll = `for f in payload scribble; do dd if=/data/$f bs=1M iflag=direct 2>/dev/null | sha256sum; done; wc -l < /data/beats`

// The old holder counts its beats, and writes over a file that its successor reads.
const scribbler = `dd if=/dev/urandom of=/data/payload bs=1M count=8 2>/dev/null
sync
dd if=/data/payload bs=1M iflag=direct 2>/dev/null | sha256sum
(i=0; while i=$((i+1)); do
  dd if=/dev/urandom of=/data/scribble bs=1M count=4 conv=notrunc,fsync 2>/dev/null
  echo beat $i >> /data/beats; sync; sleep 0.2
done) & true`

func TestAVolumeIsTakenFromANodeThatGoesOnWriting(t *testing.T) {
	namespace := space(t)
	apply(t, claim{name: "c", class: "share", size: "64Mi"}.manifest(namespace)+
		pod{name: "old", node: "node-a", claim: "c", script: scribbler}.manifest(namespace))
	payload := ready(t, namespace, "old")
	volume := volumeOf(t, namespace, "c")
	old := "/var/lib/kubelet/pods/" + kubectl(t, "-n", namespace, "get", "pod", "old", "-o", "jsonpath={.metadata.uid}") +
		"/volumes/kubernetes.io~csi/" + volume + "/mount"
	attachment := attachmentOf(t, volume, "node-a")
	if oldBeats(t, old) == 0 {
		eventually(t, "the old pod to write", func() error { return moreThan(oldBeats(t, old), 0) })
	}

	// The node is cut off: nobody there hears the cluster any more, the containers run on.
	must(t, k8s.StopComponent(ctx, "node-a/kubelet", syscall.SIGKILL))
	t.Cleanup(func() { bringBack(t) })
	if killed := kill(t, "node-a", "/usr/bin/collage node --node-name=node-a"); killed != 1 {
		t.Fatalf("%d agents were killed on node-a", killed)
	}
	eventually(t, "node-a to be NotReady", func() error { return nodeReady("node-a", false) })
	kubectl(t, "-n", namespace, "delete", "pod", "old", "--force", "--grace-period=0")
	apply(t, pod{name: "new", node: "node-b", claim: "c", script: readAll}.manifest(namespace))
	eventually(t, "the new pod to wait", func() error {
		return warned(namespace, "new", "FailedAttachVolume", "Multi-Attach error", volume)
	})

	// As Kubernetes does by itself after six minutes. It is no proof: the answer names the holder and what would be.
	kubectl(t, "delete", "volumeattachment", attachment, "--wait=false")
	said := []string{"is held by node node-a", "does not answer and may still write to it", "kubectl taint node node-a " + outOfService}
	eventually(t, "the claim to say who holds the volume", func() error {
		return warned(namespace, "c", "WaitingForProof", append(said, attachment)...)
	})
	eventually(t, "the attachment to say so", func() error {
		out, err := k8s.Kubectl(ctx, "get", "volumeattachment", attachment, "-o", "jsonpath={.status.detachError.message}")
		for _, part := range said {
			if err == nil && !strings.Contains(out, part) {
				err = fmt.Errorf("it says %q", out)
			}
		}
		return err
	})
	if held := holders(t, volume); !strings.Contains(held, ":node-a") || strings.Contains(held, "released") {
		t.Errorf("moved without proof: %s", held)
	}
	if phase := kubectl(t, "-n", namespace, "get", "pod", "new", "-o", "jsonpath={.status.phase}"); phase != "Pending" {
		t.Errorf("the new pod is %s", phase)
	}

	kubectl(t, "taint", "node", "node-a", outOfService+"=nodeshutdown:NoExecute")
	// What it reads at once...
	first := strings.Split(strings.TrimSpace(ready(t, namespace, "new")), "\n")
	if len(first) != 3 || first[0] != strings.TrimSpace(payload) {
		t.Fatalf("the old pod wrote %q, the new one read %q", payload, first)
	}
	eventually(t, "the event with the proof", func() error {
		out, err := k8s.Kubectl(ctx, "get", "events", "-n", "default", "--field-selector", "reason=ForcedDetach,involvedObject.name="+volume, "-o", "jsonpath={.items[*].message}")
		if err == nil && !(strings.Contains(out, "the taint "+outOfService+" on the node") && strings.Contains(out, "access was taken")) {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
	// ... stays so while the old holder writes on: its writes are in its own view, and go to a file without a name.
	before := oldBeats(t, old)
	eventually(t, "the old holder to write on", func() error { return moreThan(oldBeats(t, old), before+5) })
	if open := deletedLoops(t, volume); len(open) != 1 {
		t.Errorf("loop devices over the old image: %q", open)
	}
	reads := func() []string {
		return strings.Split(kubectl(t, "-n", namespace, "exec", "new", "--", "sh", "-c", readAll), "\n")
	}
	if second := reads(); strings.Join(second, " ") != strings.Join(first, " ") {
		t.Errorf("the new holder read %q, and %q while the old one wrote on", first, second)
	}
	beats, err := strconv.Atoi(first[2])
	if err != nil || beats >= oldBeats(t, old) {
		t.Errorf("the new holder sees %q beats, the old one %d", first[2], oldBeats(t, old))
	}

	// The node is back: its agent lets go of what is stale, and touches nothing else.
	room := freeBytes(t)
	bringBack(t)
	eventually(t, "node-a to let go of the old image", func() error {
		mounts, err := k8s.NodeExec(ctx, "node-a", "sh", "-c", "grep "+volume+" /proc/self/mountinfo || true")
		if open := deletedLoops(t, volume); err == nil && (mounts != "" || len(open) > 0) {
			err = fmt.Errorf("mounts %q, loop devices %q", mounts, open)
		}
		return err
	})
	eventually(t, "the old image's room to be free", func() error { return moreThan(freeBytes(t)-room, 2<<20) })
	if third := reads(); strings.Join(third, " ") != strings.Join(first, " ") {
		t.Errorf("after node-a's return the new holder reads %q, not %q", third, first)
	}
	kubectl(t, "-n", namespace, "exec", "new", "--", "sh", "-c", "echo more >> /data/beats && sync")
	if images := strings.Fields(inVolume(t, volume, "ls", "-A")); strings.Count(strings.Join(images, " "), "image.") != 1 || contains(images, "clone.") {
		t.Errorf("the volume's files: %q", images)
	}
}

func TestASecondPodOnAnotherNodeIsToldWhoUsesTheVolume(t *testing.T) {
	namespace := space(t)
	apply(t, claim{name: "c", class: "share", size: "16Mi"}.manifest(namespace)+
		pod{name: "first", node: "node-a", claim: "c", script: "echo first > /data/file; sync"}.manifest(namespace))
	ready(t, namespace, "first")
	apply(t, pod{name: "second", node: "node-b", claim: "c", script: "cat /data/file"}.manifest(namespace))
	eventually(t, "the second pod to be told", func() error {
		return warned(namespace, "second", "FailedAttachVolume", "Multi-Attach error", "already used by pod(s) first")
	})
	kubectl(t, "-n", namespace, "delete", "pod", "first")
	if out := ready(t, namespace, "second"); out != "first\n" {
		t.Errorf("read %q", out)
	}
}

// bringBack starts node-a's kubelet, which starts the agent, and takes the taint off. Done already: nothing.
func bringBack(t *testing.T) {
	t.Helper()
	status, err := k8s.Status(ctx)
	must(t, err)
	for _, component := range status.Components {
		if component.Name == "node-a/kubelet" && component.PID == 0 {
			must(t, k8s.StartComponent(ctx, component.Name))
		}
	}
	eventually(t, "node-a to be Ready", func() error { return nodeReady("node-a", true) })
	k8s.Kubectl(ctx, "taint", "node", "node-a", outOfService+"-") // fails when it has none
	kubectl(t, "-n", system, "rollout", "status", "daemonset", "--timeout=2m")
	kubectl(t, "-n", system, "rollout", "status", "deployment", "--timeout=2m")
}

func nodeReady(node string, want bool) error {
	out, err := k8s.Kubectl(ctx, "get", "node", node, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
	if err == nil && (out == "True") != want {
		err = fmt.Errorf("Ready is %s", out)
	}
	return err
}

func moreThan[T int | int64](value, least T) error {
	if value <= least {
		return fmt.Errorf("%d, not more than %d", value, least)
	}
	return nil
}

// attachmentOf answers the name of the volume's VolumeAttachment to a node.
func attachmentOf(t *testing.T, volume, node string) string {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct {
				NodeName string
				Source   struct{ PersistentVolumeName string }
			}
		}
	}
	must(t, k8s.Get(ctx, &list, "volumeattachments"))
	for _, item := range list.Items {
		if item.Spec.NodeName == node && item.Spec.Source.PersistentVolumeName == volume {
			return item.Metadata.Name
		}
	}
	t.Fatalf("%s is not attached to %s", volume, node)
	return ""
}

// oldBeats counts the beats that the old pod wrote, as its own node sees them through its mount.
func oldBeats(t *testing.T, mount string) int {
	t.Helper()
	out, err := k8s.NodeExec(ctx, "node-a", "sh", "-c", "wc -l < "+mount+"/beats || echo 0")
	must(t, err)
	beats, err := strconv.Atoi(strings.TrimSpace(out))
	must(t, err)
	return beats
}

// inVolume runs a program in the volume's directory on the share.
func inVolume(t *testing.T, volume string, program ...string) string {
	t.Helper()
	out, err := k8s.NodeExec(ctx, "node-b", "sh", "-c", "cd "+cluster.ShareDir+"/"+volume+" && "+strings.Join(program, " "))
	must(t, err)
	return out
}

// holders shows the records of who holds the volume.
func holders(t *testing.T, volume string) string {
	t.Helper()
	return inVolume(t, volume, "for f in owner.* released.*; do if [ -L $f ] || [ -e $f ]; then echo $f:$(readlink $f); fi; done")
}

// deletedLoops lists the loop devices of the machine over images of the volume that have no name any more.
func deletedLoops(t *testing.T, volume string) []string {
	t.Helper()
	out, err := k8s.NodeExec(ctx, "node-a", "sh", "-c", "grep -H '/"+volume+"/.*(deleted)' /sys/block/loop*/loop/backing_file 2>/dev/null || true")
	must(t, err)
	return strings.Fields(strings.ReplaceAll(out, " (deleted)", ""))
}

func freeBytes(t *testing.T) int64 {
	t.Helper()
	out, err := k8s.NodeExec(ctx, "node-b", "stat", "-f", "-c", "%f %S", cluster.ShareDir)
	must(t, err)
	var blocks, size int64
	if _, err := fmt.Sscan(out, &blocks, &size); err != nil {
		t.Fatalf("stat says %q: %v", out, err)
	}
	return blocks * size
}
