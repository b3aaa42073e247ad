package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests boot real clusters, of a name and folder of their own, and hold the host against what it was before.

const pods = `
apiVersion: v1
kind: Pod
metadata: {name: keeper}
spec:
  nodeName: node-a
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: localhost/busybox:local
    imagePullPolicy: Never
    command: [sleep, "100000"]
    securityContext: {privileged: true}
    volumeMounts:
    - {name: kubelet, mountPath: /var/lib/kubelet, mountPropagation: Bidirectional}
    - {name: state, mountPath: /var/lib/collage, mountPropagation: Bidirectional}
    - {name: dev, mountPath: /dev}
    - {name: share, mountPath: /share}
  volumes:
  - {name: kubelet, hostPath: {path: /var/lib/kubelet}}
  - {name: state, hostPath: {path: /var/lib/collage}}
  - {name: dev, hostPath: {path: /dev}}
  - {name: share, hostPath: {path: /srv/collage-share}}
---
apiVersion: v1
kind: Pod
metadata: {name: neighbour}
spec:
  nodeName: node-a
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: localhost/busybox:local
    imagePullPolicy: Never
    command: [sleep, "100000"]
    volumeMounts: [{name: kubelet, mountPath: /kubelet, mountPropagation: HostToContainer}]
  volumes: [{name: kubelet, hostPath: {path: /var/lib/kubelet}}]
---
apiVersion: v1
kind: Pod
metadata: {name: remote}
spec:
  nodeName: node-b
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: localhost/busybox:local
    imagePullPolicy: Never
    command: [sleep, "100000"]
    volumeMounts: [{name: share, mountPath: /share}]
  volumes: [{name: share, hostPath: {path: /srv/collage-share}}]
`

func realCluster(t *testing.T, name string) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a real cluster")
	}
	if os.Geteuid() != 0 {
		t.Fatal("booting a cluster needs root; -short leaves these tests out")
	}
	c, err := Open(name, "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Down(&bytes.Buffer{}); err != nil {
			t.Error(err)
		}
	})
	return c
}

// up boots and returns what was said.
func up(t *testing.T, c *Cluster) string {
	t.Helper()
	var out bytes.Buffer
	if err := c.Up(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String()
}

// hostState is what a cluster could change on the host. What concurrent work changes is left out: processes and loop
// devices that are not the cluster's.
func hostState(t *testing.T, c *Cluster) string {
	t.Helper()
	var state []string
	add := func(kind string, values ...string) {
		for _, value := range values {
			state = append(state, kind+" "+value)
		}
	}
	mounts, err := readMounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, mount := range mounts {
		if strings.Contains(mount.mountPoint, "collage") || strings.HasPrefix(mount.mountPoint, "/run/") ||
			strings.HasPrefix(mount.mountPoint, "/var/lib") || strings.HasPrefix(mount.mountPoint, c.Dir) {
			add("mount", mount.mountPoint)
		}
	}
	for _, path := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom",
		"/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops", "/proc/sys/kernel/keys/root_maxkeys",
		"/proc/net/route", "/proc/net/fib_trie"} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		add("file", path+" "+string(content))
	}
	for _, path := range []string{"/var/lib/kubelet", "/var/lib/collage", "/srv/collage-share", "/var/log/pods", "/var/log/containers",
		"/run/cluster", "/run/cni", "/run/netns"} {
		if _, err := os.Lstat(path); err == nil {
			add("path", path)
		}
	}
	visitCgroups(c.cgroup(), func(path string) { add("cgroup", path) })
	add("process", cgroupProcesses(c.cgroup())...)
	sort.Strings(state)
	return strings.Join(state, "\n")
}

func inPod(t *testing.T, c *Cluster, pod, script string) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), "exec", pod, "--", "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func applyPods(t *testing.T, c *Cluster) {
	t.Helper()
	if err := c.Apply(t.Context(), pods); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(t.Context(), "wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s"); err != nil {
		t.Fatal(err)
	}
}

func TestClusterRunsPodsOnBothNodesAndLeavesNothing(t *testing.T) {
	c := realCluster(t, "lifecycle")
	before := hostState(t, c)
	up(t, c)

	began := time.Now()
	if said := up(t, c); !strings.Contains(said, "up already") || time.Since(began) > 2*time.Second {
		t.Errorf("a second 'up' took %s and said %q", time.Since(began), said)
	}
	applyPods(t, c)

	inPod(t, c, "keeper", "echo shared > /share/f")
	if got := inPod(t, c, "remote", "cat /share/f"); got != "shared" {
		t.Errorf("node-b reads %q from the share", got)
	}
	// A mount that a pod makes is seen by the node and by other pods of it, and by nobody else.
	inPod(t, c, "keeper", "mkdir -p /var/lib/kubelet/m && mount -t tmpfs none /var/lib/kubelet/m && echo seen > /var/lib/kubelet/m/f")
	if got := inPod(t, c, "neighbour", "cat /kubelet/m/f"); got != "seen" {
		t.Errorf("the neighbour reads %q", got)
	}
	if got, err := c.NodeExec(t.Context(), "node-a", "cat", "/var/lib/kubelet/m/f"); err != nil || got != "seen\n" {
		t.Errorf("node-a reads %q, %v", got, err)
	}
	if _, err := c.NodeExec(t.Context(), "node-b", "cat", "/var/lib/kubelet/m/f"); err == nil {
		t.Error("node-b sees node-a's mount")
	}
	// A state directory of its own on each node.
	inPod(t, c, "keeper", "echo a > /var/lib/collage/who")
	if _, err := c.NodeExec(t.Context(), "node-b", "cat", "/var/lib/collage/who"); err == nil {
		t.Error("node-b sees node-a's state")
	}
	// The share can clone files, and a pod can use loop devices, which "down" must free.
	if _, err := c.NodeExec(t.Context(), "node-a", "cp", "--reflink=always", "/srv/collage-share/f", "/srv/collage-share/g"); err != nil {
		t.Error(err)
	}
	inPod(t, c, "keeper", "dd if=/dev/zero of=/share/v bs=1M count=0 seek=16 2>/dev/null; losetup -f /share/v")
	inPod(t, c, "keeper", "dd if=/dev/zero of=/var/lib/collage/v bs=1M count=0 seek=16 2>/dev/null; losetup -f /var/lib/collage/v")
	loops := clusterLoops(t, c)
	if len(loops) < 3 {
		t.Errorf("expected the share and two volumes on loop devices, found %v", loops)
	}
	if version, err := c.Helm(t.Context(), "list"); err != nil {
		t.Errorf("helm: %v %s", err, version)
	}

	if err := c.Down(&bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	if after := hostState(t, c); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if left := stillConfigured(t, loops); len(left) > 0 {
		t.Errorf("loop devices are left: %v", left)
	}
	if _, err := os.Stat(c.Dir); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
	if err := c.Down(&bytes.Buffer{}); err != nil {
		t.Errorf("a second 'down': %v", err)
	}
}

func TestClusterIsMadeAnewAfterACrash(t *testing.T) {
	c := realCluster(t, "crash")
	before := hostState(t, c)
	up(t, c)
	applyPods(t, c)
	inPod(t, c, "keeper", "dd if=/dev/zero of=/share/v bs=1M count=0 seek=16 2>/dev/null; losetup -f /share/v")
	loops := clusterLoops(t, c)
	supervisor := c.supervisorPID()
	if err := syscall.Kill(supervisor, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitFor(t.Context(), "the supervisor to be gone", 20*time.Second, func() error {
		if c.supervisorPID() != 0 {
			return fmt.Errorf("process %d lives", supervisor)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(t.Context(), "get", "nodes"); err == nil || !strings.Contains(err.Error(), "not up") {
		t.Errorf("kubectl after the crash: %v", err)
	}
	up(t, c)
	if left, err := c.Kubectl(t.Context(), "get", "pods", "-o", "name"); err != nil || left != "" {
		t.Errorf("the new cluster has pods %q, %v", left, err)
	}
	applyPods(t, c)
	supervisor = c.supervisorPID()
	syscall.Kill(supervisor, syscall.SIGKILL)
	if err := c.Down(&bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	if after := hostState(t, c); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if left := stillConfigured(t, loops); len(left) > 0 {
		t.Errorf("loop devices are left: %v", left)
	}
}

func TestComponentsEndAndComeBack(t *testing.T) {
	c := realCluster(t, "parts")
	up(t, c)
	ctx := t.Context()
	if err := c.StopComponent(ctx, "kube-apiserver", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status, err := c.Status(ctx); err != nil || status.Ready || !strings.Contains(status.Problem, "kube-apiserver") {
		t.Errorf("status without an API server: %+v, %v", status, err)
	}
	if err := c.StartComponent(ctx, "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	ready := func() error {
		status, err := c.Status(ctx)
		if err == nil && !status.Ready {
			err = fmt.Errorf("%s", status.Problem)
		}
		return err
	}
	if err := c.WaitFor(ctx, "the API server to be back", time.Minute, ready); err != nil {
		t.Fatal(err)
	}
	// One that dies by itself is started again.
	status, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, component := range status.Components {
		if component.Name == "node-b/kubelet" {
			if _, err := c.NodeExec(ctx, "node-b", "kill", "-9", fmt.Sprint(component.PID)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.WaitFor(ctx, "the kubelet to be restarted", time.Minute, func() error {
		status, err := c.Status(ctx)
		if err != nil {
			return err
		}
		for _, component := range status.Components {
			if component.Name == "node-b/kubelet" && (component.Restarts != 1 || component.PID == 0) {
				return fmt.Errorf("%+v", component)
			}
		}
		return ready()
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.StopComponent(ctx, "nonsense", syscall.SIGTERM); err == nil || !strings.Contains(err.Error(), "node-a/kubelet") {
		t.Errorf("stopping what is not there: %v", err)
	}
}

func TestFailedBootNamesTheLogAndLeavesNoProcess(t *testing.T) {
	c := realCluster(t, "broken")
	// Programs that end at once stand for whatever keeps the control plane from starting.
	c.Bin = t.TempDir()
	for _, name := range []string{"kube", "helm"} {
		if err := os.WriteFile(filepath.Join(c.Bin, name), []byte("#!/bin/sh\necho no such luck >&2\nexit 3\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	err := c.Up(t.Context(), &out)
	if err == nil {
		t.Fatal("the cluster is up without a control plane")
	}
	for _, want := range []string{"ended with exit code 3", "no such luck", "remedy", ".log"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if processes := cgroupProcesses(c.cgroup()); len(processes) > 0 {
		t.Errorf("processes are left: %v", processes)
	}
	c.Bin = filepath.Join(c.Bin, "nowhere")
	if err := c.Up(t.Context(), &out); err == nil || !strings.Contains(err.Error(), "tools.sh") {
		t.Errorf("without programs: %v", err)
	}
}

func TestInterruptedBootLeavesNothing(t *testing.T) {
	c := realCluster(t, "interrupted")
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	var out bytes.Buffer
	if err := c.Up(ctx, &out); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if processes := cgroupProcesses(c.cgroup()); len(processes) > 0 {
		t.Errorf("processes are left: %v", processes)
	}
	if loops := clusterLoops(t, c); len(loops) > 0 {
		t.Errorf("loop devices are left: %v", loops)
	}
}

func clusterLoops(t *testing.T, c *Cluster) []loopDevice {
	t.Helper()
	files := map[fileID]bool{}
	filepath.WalkDir(c.Dir, func(path string, entry fs.DirEntry, err error) error {
		var stat syscall.Stat_t
		if err == nil && entry.Type().IsRegular() && syscall.Lstat(path, &stat) == nil {
			files[fileID{stat.Dev, stat.Ino}] = true
		}
		return nil
	})
	loops, err := listLoops()
	if err != nil {
		t.Fatal(err)
	}
	return ownLoops(loops, files)
}

// stillConfigured returns those of the loop devices that are still over the same file.
func stillConfigured(t *testing.T, before []loopDevice) (left []string) {
	t.Helper()
	now, err := listLoops()
	if err != nil {
		t.Fatal(err)
	}
	for _, loop := range now {
		for _, earlier := range before {
			if loop == earlier {
				left = append(left, loop.path)
			}
		}
	}
	return left
}
