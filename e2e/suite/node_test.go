package suite

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"collage/e2e/cluster"
)

// These tests take a node apart, so they do not run beside others.

const agentState = "/var/lib/collage/node"

// onNode runs a script on node-a.
func onNode(t *testing.T, script string) string {
	t.Helper()
	out, err := k8s.NodeExec(ctx, "node-a", "sh", "-ec", script)
	must(t, err)
	return strings.TrimSpace(out)
}

// mountsOf lists the mount points of a volume on node-a: of its loop device.
func mountsOf(t *testing.T, volume string) []string {
	t.Helper()
	return strings.Fields(onNode(t, `
		for l in /sys/block/loop*; do
			grep -q "/`+volume+`/" $l/loop/backing_file 2>/dev/null || continue
			awk -v n="$(cat $l/dev)" '$3 == n { print $5 }' /proc/self/mountinfo
		done`))
}

// killUsers kills the pods' processes on node-a that have the volume mounted.
func killUsers(t *testing.T, volume string) {
	t.Helper()
	out := onNode(t, `
		for l in /sys/block/loop*; do
			grep -q "/`+volume+`/" $l/loop/backing_file 2>/dev/null || continue
			for p in /proc/[0-9]*; do
				[ "$(tr '\0' ' ' 2>/dev/null < $p/cmdline)" = "sleep 2147483647 " ] || continue
				awk -v n="$(cat $l/dev)" '$3 == n { found = 1 } END { exit !found }' $p/mountinfo 2>/dev/null || continue
				kill -9 ${p#/proc/} && echo killed
			done
		done`)
	if !strings.Contains(out, "killed") {
		t.Fatalf("nobody uses volume %s", volume)
	}
}

// restartAgent replaces the agent's pod on node-a.
func restartAgent(t *testing.T) {
	t.Helper()
	kubectl(t, "-n", system, "delete", "pod", "-l", "app.kubernetes.io/component=node", "--field-selector", "spec.nodeName=node-a", "--timeout=1m")
	kubectl(t, "-n", system, "rollout", "status", "daemonset", "--timeout=2m")
}

func always(manifest string) string {
	return strings.ReplaceAll(manifest, "restartPolicy: Never", "restartPolicy: Always")
}

func TestANodeThatWasRebootedServesItsPodsAgainAndTouchesNothingElse(t *testing.T) {
	namespace := space(t)
	for _, class := range []string{"disk", "share"} {
		apply(t, claim{name: class, class: class, size: "32Mi"}.manifest(namespace)+
			always(pod{name: class, node: "node-a", claim: class, script: "echo boot >> /data/boots; sync; cat /data/boots"}.manifest(namespace)))
	}
	var volumes []string
	for _, class := range []string{"disk", "share"} {
		ready(t, namespace, class)
		volumes = append(volumes, volumeOf(t, namespace, class))
	}
	// Somebody else's mount and loop device, with the names that ours have.
	foreign := onNode(t, `
		mkdir -p /var/tmp/pvc-foreign /mnt/foreign
		truncate -s 16M /var/tmp/pvc-foreign/image.0
		mkfs.ext4 -q /var/tmp/pvc-foreign/image.0
		loop=$(losetup --find --show /var/tmp/pvc-foreign/image.0)
		mount $loop /mnt/foreign
		echo $loop`)
	t.Cleanup(func() {
		onNode(t, "umount /mnt/foreign; losetup -d "+foreign+"; rm -r /var/tmp/pvc-foreign /mnt/foreign")
	})

	// The power goes: kubelet, the agent and the pods' processes end, and with the kernel all mounts and loop devices.
	must(t, k8s.StopComponent(ctx, "node-a/kubelet", syscall.SIGKILL))
	kill(t, "node-a", "/usr/bin/collage node --node-name=node-a")
	for _, volume := range volumes {
		killUsers(t, volume)
		onNode(t, `
			volume=`+volume+`
			for l in /sys/block/loop*; do
				grep -q "/$volume/" $l/loop/backing_file 2>/dev/null || continue
				for m in $(awk -v n="$(cat $l/dev)" '$3 == n { print $5 }' /proc/self/mountinfo); do umount -l $m; done
				losetup -d /dev/${l##*/}
			done`)
	}
	onNode(t, `
		sed -i 's/"bootID":"[^"]*"/"bootID":"11111111-2222-3333-4444-555555555555"/' `+agentState+`/volumes/*.json
		grep -l 11111111-2222 `+agentState+`/volumes/*.json`)
	must(t, k8s.StartComponent(ctx, "node-a/kubelet"))

	for i, class := range []string{"disk", "share"} {
		eventually(t, "pod "+class+" to run again", func() error {
			out, err := k8s.Kubectl(ctx, "-n", namespace, "exec", class, "--", "grep", "-c", "boot", "/data/boots")
			if err == nil && strings.TrimSpace(out) != "2" {
				err = fmt.Errorf("it was started %s times on its volume", out)
			}
			return err
		})
		if mounts := mountsOf(t, volumes[i]); len(mounts) != 2 {
			t.Errorf("volume %s is mounted at %q", volumes[i], mounts)
		}
	}
	eventually(t, "nothing stale", func() error {
		out, err := k8s.Kubectl(ctx, "get", "storagenode", "node-a", "-o", "jsonpath={.status.mounts.stale}")
		if err == nil && strings.TrimSpace(out) != "0" {
			err = fmt.Errorf("%s mounts are stale", out)
		}
		return err
	})
	if out := onNode(t, "grep -l 11111111-2222 "+agentState+"/volumes/*.json || true"); out != "" {
		t.Errorf("left of before the reboot: %s", out)
	}
	if out := onNode(t, "findmnt -n -o SOURCE /mnt/foreign"); out != foreign {
		t.Errorf("somebody else's mount is %q now", out)
	}
}

// targetOf answers the path at which a pod's volume is published.
func targetOf(t *testing.T, namespace, podName, volume string) string {
	t.Helper()
	uid := kubectl(t, "-n", namespace, "get", "pod", podName, "-o", "jsonpath={.metadata.uid}")
	return "/var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~csi/" + volume + "/mount"
}

// told looks for an event of any type.
func told(namespace, object, reason string, parts ...string) error {
	out, err := k8s.Kubectl(ctx, "-n", namespace, "get", "events", "--field-selector", "involvedObject.name="+object+",reason="+reason,
		"-o", "jsonpath={.items[*].message}")
	if err != nil {
		return err
	}
	if out == "" {
		return fmt.Errorf("no event %s of %s", reason, object)
	}
	for _, part := range parts {
		if !strings.Contains(out, part) {
			return fmt.Errorf("event %s of %s says %q, nothing of %q", reason, object, out, part)
		}
	}
	return nil
}

func TestALostMountIsMadeAgainAndItsPodsAreTold(t *testing.T) {
	apply(t, `{apiVersion: collage.storage/v1beta1, kind: StorageBackend, metadata: {name: fragile}, spec: {image: {directory: /srv/collage-share}, onMountLost: DeletePod, storageClasses: [{name: fragile}]}}`)
	// After the namespace and its volumes.
	t.Cleanup(func() { kubectl(t, "delete", "sb", "fragile", "--timeout=1m") })
	namespace := space(t)
	eventually(t, "the backend", func() error { return conditionIs("fragile", "Ready", "True", "") })
	pods := []struct{ name, class string }{{"told", "share"}, {"blind", "fragile"}, {"sees", "fragile"}}
	for _, p := range pods {
		manifest := always(pod{name: p.name, node: "node-a", claim: p.name, script: "echo start >> /data/starts; sync"}.manifest(namespace))
		if p.name == "sees" {
			manifest = strings.ReplaceAll(manifest, "readOnly: false}", "readOnly: false, mountPropagation: HostToContainer}")
		}
		apply(t, claim{name: p.name, class: p.class, size: "16Mi"}.manifest(namespace)+manifest)
	}
	volumes := map[string]string{}
	for _, p := range pods {
		ready(t, namespace, p.name)
		volumes[p.name] = volumeOf(t, namespace, p.name)
	}
	for _, p := range pods {
		mounts := mountsOf(t, volumes[p.name])
		if len(mounts) != 2 {
			t.Fatalf("volume of pod %s is mounted at %q", p.name, mounts)
		}
		onNode(t, "umount -l "+strings.Join(mounts, " "))
	}
	for _, p := range pods {
		eventually(t, "the claim of pod "+p.name+" to be told", func() error {
			return told(namespace, p.name, "VolumeConditionAbnormal", volumes[p.name], "node-a", "is made again")
		})
	}
	eventually(t, "pod blind to be deleted", func() error {
		if err := told(namespace, "blind", "MountLost", "spec.onMountLost of StorageBackend fragile"); err != nil {
			return err
		}
		if out, err := k8s.Kubectl(ctx, "-n", namespace, "get", "pod", "blind", "--ignore-not-found", "-o", "name"); err != nil || out != "" {
			return fmt.Errorf("%s%v", out, err)
		}
		return nil
	})
	eventually(t, "pod sees to be left alone", func() error { return told(namespace, "sees", "VolumeConditionNormal", "the pod sees it") })
	// Containers that are started from now on find their volume at the same path.
	for _, name := range []string{"told", "sees"} {
		if mounts := mountsOf(t, volumes[name]); len(mounts) != 2 || !contains(mounts, targetOf(t, namespace, name, volumes[name])) {
			t.Errorf("volume of pod %s is mounted at %q", name, mounts)
		}
		killUsers(t, volumes[name])
		eventually(t, "a new container of pod "+name, func() error {
			out, err := k8s.Kubectl(ctx, "-n", namespace, "exec", name, "--", "grep", "-c", "start", "/data/starts")
			if err == nil && strings.TrimSpace(out) != "2" {
				err = fmt.Errorf("it was started %s times on its volume", out)
			}
			return err
		})
	}
}

func TestAFullStateDirectoryRefusesNewMountsAndReleasesOldOnes(t *testing.T) {
	namespace := space(t)
	// A small file system in the state directory's place, with what it held.
	onNode(t, `
		cp -a `+agentState+` `+agentState+`.kept
		mount -t tmpfs -o size=1m,mode=700 none `+agentState+`
		cp -a `+agentState+`.kept/. `+agentState)
	t.Cleanup(func() {
		kubectl(t, "-n", namespace, "delete", "pods,pvc", "--all", "--timeout=1m")
		onNode(t, `
			rm -f `+agentState+`/filler
			rm -r `+agentState+`.kept
			cp -a `+agentState+` `+agentState+`.kept
			umount -l `+agentState+`
			rm -r `+agentState+`
			mv `+agentState+`.kept `+agentState)
		restartAgent(t)
	})
	restartAgent(t)
	for _, name := range []string{"old", "new"} {
		apply(t, claim{name: name, class: "share-now", size: "16Mi"}.manifest(namespace))
	}
	apply(t, pod{name: "old", node: "node-a", claim: "old", script: "true"}.manifest(namespace))
	ready(t, namespace, "old")
	onNode(t, "dd if=/dev/zero of="+agentState+"/filler bs=1k 2>/dev/null || true")
	apply(t, pod{name: "new", node: "node-a", claim: "new", script: "true"}.manifest(namespace))
	eventually(t, "the event of the new pod", func() error {
		return warned(namespace, "new", "FailedMount", "make room below "+agentState, "No space left")
	})
	volume := volumeOf(t, namespace, "old")
	kubectl(t, "-n", namespace, "delete", "pod", "old", "--timeout=1m")
	eventually(t, "the old volume to be released", func() error {
		if mounts := mountsOf(t, volume); len(mounts) != 0 {
			return fmt.Errorf("mounted at %q", mounts)
		}
		return nil
	})
	onNode(t, "rm "+agentState+"/filler")
	ready(t, namespace, "new")
}

func TestAVolumeThatHoldsForeignDataIsNotMountedOver(t *testing.T) {
	namespace := space(t)
	apply(t, claim{name: "foreign", class: "share-now", size: "16Mi"}.manifest(namespace))
	eventually(t, "the claim to be Bound", func() error { return bound(namespace, 1) })
	volume := volumeOf(t, namespace, "foreign")
	image := cluster.ShareDir + "/" + volume + "/image.0"
	onNode(t, `printf 'LUKS\272\276\000\001' | dd of=`+image+` conv=notrunc 2>/dev/null`)
	apply(t, pod{name: "foreign", node: "node-a", claim: "foreign", script: "true"}.manifest(namespace))
	eventually(t, "the event of the pod", func() error {
		return warned(namespace, "foreign", "FailedMount", "is not blank, it holds", "/dev/loop", "volume share/"+volume, "blkdiscard -z")
	})
	if magic := onNode(t, "head -c 4 "+image); magic != "LUKS" {
		t.Errorf("the image begins with %q now", magic)
	}
	// As the message says.
	onNode(t, "dd if=/dev/zero of="+image+" bs=1k count=1 conv=notrunc 2>/dev/null")
	ready(t, namespace, "foreign")
}

func TestADiskThatIsNotMountedLosesNoVolume(t *testing.T) {
	const directory = "/var/lib/collage/volumes"
	namespace := space(t)
	apply(t, claim{name: "data", class: "disk", size: "16Mi"}.manifest(namespace)+
		pod{name: "data", node: "node-a", claim: "data", script: "true"}.manifest(namespace))
	ready(t, namespace, "data")
	volume := volumeOf(t, namespace, "data")
	kubectl(t, "-n", namespace, "delete", "pod", "data", "--timeout=1m")
	eventually(t, "the volume to be unmounted", func() error {
		if mounts := mountsOf(t, volume); len(mounts) != 0 {
			return fmt.Errorf("mounted at %q", mounts)
		}
		return nil
	})
	// What the path shows while its disk is away.
	onNode(t, "mount -t tmpfs none "+directory)
	away := true
	back := func() {
		if away {
			onNode(t, "umount "+directory)
			away = false
		}
	}
	t.Cleanup(back)
	kubectl(t, "-n", namespace, "delete", "pvc", "data", "--timeout=1m")
	eventually(t, "the event of the volume", func() error {
		return warned("default", volume, "VolumeFailedDelete", directory+" on node-a is not the storage of backend disk", "mount its disk there")
	})
	kubectl(t, "get", "pv", volume)
	if left := onNode(t, "ls -A "+directory); left != "" {
		t.Errorf("the empty directory holds %q now", left)
	}
	back()
	eventually(t, "the volume to be deleted", func() error {
		out, err := k8s.Kubectl(ctx, "get", "pv", volume, "--ignore-not-found", "-o", "name")
		if err == nil && out != "" {
			err = fmt.Errorf("%s is there", out)
		}
		return err
	})
	if names := onStorage(t, "node-a", directory); contains(names, volume) {
		t.Errorf("the disk holds %q", names)
	}
	eventually(t, "the backend to be ready on node-a", func() error { return conditionIs("disk", "Reachable", "True", "") })
}
