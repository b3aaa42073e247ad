package suite

import (
	"fmt"
	"strings"
	"testing"

	"collage/e2e/cluster"
)

func TestAClaimBecomesAVolumeInAPodAndGoesWithIt(t *testing.T) {
	const fill = "if dd if=/dev/zero of=%s bs=1M count=%d 2>/dev/null; then echo the size is not enforced; exit 1; fi"
	for _, c := range []struct {
		name  string
		class string
		size  string
		mib   int
		block bool
		user  int
	}{
		{"local ext4", "disk", "64Mi", 64, false, 0},
		{"local xfs", "disk-xfs", "320Mi", 320, false, 1000},
		{"local block", "disk", "64Mi", 64, true, 0},
		{"image ext4", "share", "64Mi", 64, false, 1000},
		{"image xfs", "share-xfs", "320Mi", 320, false, 0},
		{"image block", "share", "64Mi", 64, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			namespace := space(t)
			script := fmt.Sprintf("echo data > /data/file; sync; test data = $(cat /data/file); "+fill+"; rm /data/filler; grep ' /data ' /proc/mounts", "/data/filler", c.mib)
			if c.block {
				script = fmt.Sprintf("echo data > /dev/data; sync; test data = $(head -c 4 /dev/data); "+fill, "/dev/data", c.mib+1)
			}
			apply(t, claim{name: "c", class: c.class, size: c.size, block: c.block}.manifest(namespace)+
				pod{name: "p", claim: "c", script: script, block: c.block, user: c.user}.manifest(namespace))
			out := ready(t, namespace, "p")
			if strings.HasSuffix(c.name, "xfs") != strings.Contains(out, " xfs ") || strings.HasSuffix(c.name, "ext4") != strings.Contains(out, " ext4 ") {
				t.Errorf("mounted as %q", out)
			}
			volume := volumeOf(t, namespace, "c")
			node := kubectl(t, "-n", namespace, "get", "pod", "p", "-o", "jsonpath={.spec.nodeName}")
			if names := onStorage(t, node, directoryOf(c.class)); !contains(names, volume) {
				t.Errorf("the storage of %s holds %q, not %s", node, names, volume)
			}
			if got := kubectl(t, "get", "pv", volume, "-o", "jsonpath={.spec.capacity.storage}"); got != c.size {
				t.Errorf("capacity %s, asked for %s", got, c.size)
			}
			kubectl(t, "-n", namespace, "delete", "pod/p", "pvc/c", "--wait=false")
			eventually(t, "the volume to be gone", func() error {
				if out, err := k8s.Kubectl(ctx, "get", "pv", volume, "--ignore-not-found"); err != nil || out != "" {
					return fmt.Errorf("still there: %s %v", out, err)
				}
				return nil
			})
			if names := onStorage(t, node, directoryOf(c.class)); contains(names, volume) {
				t.Errorf("the storage of %s still holds %q", node, names)
			}
		})
	}
}

func TestAVolumeFollowsItsPodToAnotherNode(t *testing.T) {
	namespace := space(t)
	apply(t, claim{name: "c", class: "share", size: "96Mi", mode: "ReadWriteOncePod"}.manifest(namespace)+
		pod{name: "first", node: "node-a", claim: "c", script: "dd if=/dev/urandom of=/data/payload bs=1M count=32 2>/dev/null; sync; sha256sum /data/payload"}.manifest(namespace))
	before := ready(t, namespace, "first")
	volume := volumeOf(t, namespace, "c")
	kubectl(t, "-n", namespace, "delete", "pod", "first")
	apply(t, pod{name: "second", node: "node-b", claim: "c", script: "sha256sum /data/payload"}.manifest(namespace))
	if after := ready(t, namespace, "second"); after != before {
		t.Errorf("wrote %q on node-a, read %q on node-b", before, after)
	}
	attached := kubectl(t, "get", "volumeattachments", "-o", `jsonpath={range .items[?(@.spec.source.persistentVolumeName=="`+volume+`")]}{.spec.nodeName}={.status.attached} {end}`)
	if attached != "node-b=true" {
		t.Errorf("attached to %q", attached)
	}
	out, err := k8s.NodeExec(ctx, "node-a", "sh", "-c", "grep -c "+volume+" /proc/self/mountinfo || true")
	if err != nil || strings.TrimSpace(out) != "0" {
		t.Errorf("node-a still has %s mounts of it: %v", strings.TrimSpace(out), err)
	}
}

func TestALocalVolumeKeepsItsPodOnItsNode(t *testing.T) {
	t.Parallel()
	namespace := space(t)
	apply(t, claim{name: "c", class: "disk", size: "32Mi"}.manifest(namespace)+
		pod{name: "first", node: "node-b", claim: "c", script: "echo kept > /data/file; sync"}.manifest(namespace))
	ready(t, namespace, "first")
	kubectl(t, "-n", namespace, "delete", "pod", "first")
	// No node is asked for: the volume's affinity decides.
	apply(t, pod{name: "second", claim: "c", script: "cat /data/file"}.manifest(namespace))
	if out := ready(t, namespace, "second"); out != "kept\n" {
		t.Errorf("read %q", out)
	}
	if node := kubectl(t, "-n", namespace, "get", "pod", "second", "-o", "jsonpath={.spec.nodeName}"); node != "node-b" {
		t.Errorf("it runs on %s", node)
	}
}

func TestTwoPodsOfOneNodeShareAVolumeAndOneMayOnlyRead(t *testing.T) {
	t.Parallel()
	namespace := space(t)
	apply(t, claim{name: "c", class: "share", size: "32Mi"}.manifest(namespace)+
		pod{name: "writer", node: "node-a", claim: "c", script: "echo shared > /data/file; sync"}.manifest(namespace))
	ready(t, namespace, "writer")
	apply(t, pod{name: "reader", node: "node-a", claim: "c", readOnly: true, script: "cat /data/file; if touch /data/other 2>/dev/null; then echo writable; exit 1; fi"}.manifest(namespace))
	if out := ready(t, namespace, "reader"); out != "shared\n" {
		t.Errorf("read %q", out)
	}
	// The reader's end leaves the writer's mount alone.
	kubectl(t, "-n", namespace, "delete", "pod", "reader")
	kubectl(t, "-n", namespace, "exec", "writer", "--", "sh", "-c", "echo more >> /data/file && sync")
}

func TestARetainedVolumeStaysWhenItsClaimGoes(t *testing.T) {
	t.Parallel()
	namespace := space(t)
	apply(t, claim{name: "c", class: "share-keep", size: "16Mi"}.manifest(namespace))
	eventually(t, "the claim to be Bound", func() error { return bound(namespace, 1) })
	volume := volumeOf(t, namespace, "c")
	kubectl(t, "-n", namespace, "delete", "pvc", "c")
	eventually(t, "the volume to be Released", func() error {
		phase, err := k8s.Kubectl(ctx, "get", "pv", volume, "-o", "jsonpath={.status.phase}")
		if err == nil && phase != "Released" {
			err = fmt.Errorf("it is %s", phase)
		}
		return err
	})
	if names := onStorage(t, "node-a", cluster.ShareDir); !contains(names, volume) {
		t.Errorf("the share holds %q, not %s", names, volume)
	}
	// A person changes their mind: now it goes.
	kubectl(t, "patch", "pv", volume, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`)
	eventually(t, "the volume to be gone", func() error {
		if names := onStorage(t, "node-a", cluster.ShareDir); contains(names, volume) {
			return fmt.Errorf("the share still holds it")
		}
		return nil
	})
}

// bound: all claims of the namespace are Bound, and they are so many.
func bound(namespace string, count int) error {
	var list struct {
		Items []struct{ Status struct{ Phase string } }
	}
	if err := k8s.Get(ctx, &list, "pvc", "-n", namespace); err != nil {
		return err
	}
	done := 0
	for _, item := range list.Items {
		if item.Status.Phase == "Bound" {
			done++
		}
	}
	if done != count || len(list.Items) != count {
		return fmt.Errorf("%d of %d are Bound", done, count)
	}
	return nil
}
