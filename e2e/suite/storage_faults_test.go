package suite

import (
	"strings"
	"testing"
)

// Storage that goes wrong under its volumes: what a pod, a claim or a backend is told, and that the remedy told is one.

// onBoth runs a script on both nodes.
func onBoth(t *testing.T, script string) {
	t.Helper()
	for _, node := range []string{"node-a", "node-b"} {
		_, err := k8s.NodeExec(ctx, node, "sh", "-ec", script)
		must(t, err)
	}
}

func TestAFullDirectoryAndAReadOnlyOneAreToldAndMended(t *testing.T) {
	t.Parallel()
	const directory = "/var/lib/collage/volumes/small"
	onBoth(t, "mkdir -p "+directory+"; mount -t tmpfs -o size=24m none "+directory)
	t.Cleanup(func() { onBoth(t, "umount -l "+directory+"; rmdir "+directory) })
	apply(t, "{apiVersion: collage.storage/v1beta1, kind: StorageBackend, metadata: {name: small}, spec: {local: {directory: "+directory+"}, storageClasses: [{name: small, volumeBindingMode: Immediate}]}}")
	t.Cleanup(func() {
		if _, err := k8s.Kubectl(ctx, "delete", "sb", "small", "--timeout=1m"); err != nil {
			t.Error(err)
		}
	})
	namespace := space(t)
	t.Cleanup(func() { onBoth(t, "mount -o remount,rw "+directory+"; rm -f "+directory+"/filler") }) // so that volumes can go
	eventually(t, "the backend", func() error { return conditionIs("small", "Reachable", "True", "2 nodes") })

	onBoth(t, "dd if=/dev/zero of="+directory+"/filler bs=1k 2>/dev/null || true")
	apply(t, claim{name: "full", class: "small", size: "8Mi"}.manifest(namespace))
	eventually(t, "the full directory to be told", func() error {
		return warned(namespace, "full", "ProvisioningFailed", "directory "+directory+" on node-", "make room there")
	})
	onBoth(t, "rm "+directory+"/filler")
	eventually(t, "the claim to be Bound", func() error { return bound(namespace, 1) })

	onBoth(t, "mount -o remount,ro "+directory)
	apply(t, claim{name: "read-only", class: "small", size: "8Mi"}.manifest(namespace))
	says := "is read-only: mount it read-write"
	eventually(t, "the read-only directory to be told", func() error {
		return warned(namespace, "read-only", "ProvisioningFailed", "directory "+directory+" on node-", says)
	})
	eventually(t, "the condition", func() error {
		return conditionIs("small", "Reachable", "False", "directory "+directory+" on node-a "+says)
	})
	onBoth(t, "mount -o remount,rw "+directory)
	eventually(t, "both claims to be Bound", func() error { return bound(namespace, 2) })
}

func TestALoopDeviceThatVanishesUnderAVolumeIsToldAndNobodyElsesIsUsed(t *testing.T) {
	t.Parallel()
	namespace := space(t)
	raw := pod{name: "raw", node: "node-a", claim: "raw", block: true, script: "printf precious | dd of=/dev/data conv=notrunc 2>/dev/null; sync"}
	apply(t, claim{name: "raw", class: "share-now", size: "16Mi", block: true}.manifest(namespace)+raw.manifest(namespace))
	ready(t, namespace, "raw")
	volume := volumeOf(t, namespace, "raw")
	// Only kubelet has the device open, by a loop device of its own on it: both go, and the number is another image's.
	const foreign = "/var/tmp/not-the-volumes"
	device := onNode(t, `
		truncate -s 16M `+foreign+`
		of() { losetup --noheadings --raw --output NAME,BACK-FILE | awk -v part="$1" 'index($2, part) { print $1 }'; }
		for d in $(of /volumeDevices/) $(of /`+volume+`/image.0); do
			losetup --noheadings --output BACK-FILE $d | grep -q `+volume+` || continue
			losetup -d $d
		done
		losetup $d `+foreign+`
		echo $d`)
	if strings.Count(device, "/dev/loop") != 1 {
		t.Fatalf("the volume's loop device is %q", device)
	}
	t.Cleanup(func() { onNode(t, "losetup -d "+device+"; rm "+foreign) })
	eventually(t, "the pod to be told", func() error {
		return told(namespace, "raw", "VolumeConditionAbnormal", volume, "node-a", "is not the volume's any more", "restart the pod")
	})
	kubectl(t, "-n", namespace, "delete", "pod", "raw", "--timeout=1m")
	raw.script = "dd if=/dev/data bs=8 count=1 2>/dev/null; echo"
	apply(t, raw.manifest(namespace))
	if found := ready(t, namespace, "raw"); found != "precious\n" {
		t.Errorf("the volume holds %q", found)
	}
	if file := onNode(t, "losetup --noheadings --output BACK-FILE "+device); file != foreign {
		t.Errorf("%s is %q now", device, file)
	}
	if out := onNode(t, "tr -d '\\0' < "+foreign+" | wc -c"); out != "0" {
		t.Errorf("somebody else's image holds %s bytes now", out)
	}
}
