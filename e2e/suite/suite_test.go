// Package suite tests Collage on a real two-node Kubernetes: the chart installed by Helm, the images built by the
// Dockerfile, kubelets, containerd, the scheduler and the controllers of Kubernetes as they are.
package suite

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"collage/e2e/cluster"
)

const (
	system = "collage-system" // namespace of the operator and the agents
)

var (
	ctx  = context.Background()
	k8s  *cluster.Cluster
	root string

	limit = 2 * time.Minute // for anything that should take seconds
)

// Two backends for all tests. The classes whose names end in -now bind at once, the others wait for a pod.
const backends = `
apiVersion: collage.storage/v1beta1
kind: StorageBackend
metadata: {name: disk}
spec:
  local: {directory: /var/lib/collage/volumes}
  storageClasses:
    - {name: disk, parameters: {fsType: ext4, allocation: sparse}}
    - {name: disk-xfs, parameters: {fsType: xfs, allocation: sparse}}
---
apiVersion: collage.storage/v1beta1
kind: StorageBackend
metadata: {name: share}
spec:
  image: {directory: /srv/collage-share}
  storageClasses:
    - {name: share, parameters: {fsType: ext4}}
    - {name: share-xfs, parameters: {fsType: xfs}}
    - {name: share-now, volumeBindingMode: Immediate}
    - {name: share-keep, volumeBindingMode: Immediate, reclaimPolicy: Retain}
  limits: {maxVolumeSize: 1Gi}
`

func TestMain(m *testing.M) {
	cluster.HandleReexec()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if root, err = cluster.RepositoryRoot(); err != nil {
		return give("find the repository", err)
	}
	if k8s, err = cluster.Open(cmp.Or(os.Getenv("CLUSTER"), "test"), "", ""); err != nil {
		return give("open the cluster", err)
	}
	if os.Getenv("KEEP") == "" {
		defer k8s.Down(os.Stdout)
		// What an earlier run left would be tested instead of this one.
		if err := k8s.Down(os.Stdout); err != nil {
			return give("remove an earlier cluster", err)
		}
	}
	if err := k8s.Up(ctx, os.Stdout); err != nil {
		return give("boot the cluster", err)
	}
	for _, archive := range []string{"collage.tar", "collage-node.tar"} {
		if err := k8s.Load(ctx, filepath.Join(root, "build/image", archive)); err != nil {
			return give("load "+archive, err)
		}
	}
	var seen *reports
	if sanitized != "" {
		limit *= 3
		if seen, err = followReports(filepath.Join(root, "build/test-logs", sanitized)); err != nil {
			return give("follow the logs", err)
		}
	}
	if err := install(); err != nil {
		return give("install the chart", err)
	}
	if err := k8s.Apply(ctx, backends); err != nil {
		return give("apply the backends", err)
	}
	for _, name := range []string{"disk", "share"} {
		if err := k8s.WaitFor(ctx, "StorageBackend "+name, limit, func() error { return conditionIs(name, "Ready", "True", "") }); err != nil {
			return give("wait for the backends", err)
		}
	}
	code := m.Run()
	if seen != nil {
		if found := seen.end(); len(found) > 0 {
			code = give("sanitizers reported (build/test-logs/"+sanitized+")", errors.New(strings.Join(found, "\n")))
		}
	}
	if code != 0 {
		logs()
	}
	return code
}

// program is what is in the images, for tests that run it outside a pod.
func program() string {
	return filepath.Join(root, "build", cmp.Or(sanitized, "release"), "bin/collage")
}

func give(what string, err error) int {
	fmt.Fprintf(os.Stderr, "suite: %s: %v\n", what, err)
	logs()
	return 1
}

func install() error { return installAs("collage") }

func installAs(release string) error {
	inputs, err := os.ReadFile(filepath.Join(root, "build/image/inputs"))
	if err != nil {
		return err
	}
	revision := string(inputs[:12])
	chart := filepath.Join(root, "helm/collage")
	if _, err := k8s.Kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-f", filepath.Join(chart, "crds")); err != nil {
		return err
	}
	values := []string{}
	if sanitized != "" {
		values = append(values, "--set", "controller.resources.limits.memory=4Gi")
	}
	_, err = k8s.Helm(ctx, append(values, "upgrade", "--install", release, chart, "--namespace", system, "--create-namespace",
		"--set", "image.repository=localhost/collage,image.tag=dev,image.pullPolicy=Never",
		"--set-string", "controller.podAnnotations.revision="+revision, "--set-string", "node.podAnnotations.revision="+revision,
		"--set", "node.directories={/var/lib/collage/volumes,/srv/collage-share},test.storageClass=share,rbac.deletePods=true", "--wait", "--timeout", limit.String())...)
	return err
}

// logs prints what the operator and the agents said last.
func logs() {
	if k8s == nil {
		return
	}
	for _, arguments := range [][]string{
		{"get", "sb,pv,volumeattachments"},
		{"get", "pods,pvc", "-A", "-o", "wide"},
		{"-n", system, "logs", "-l", "app.kubernetes.io/name=collage", "--tail=60", "--prefix", "--all-containers"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
	} {
		out, err := k8s.Kubectl(ctx, arguments...)
		if len(out) > 12000 {
			out = out[len(out)-12000:]
		}
		fmt.Printf("---- kubectl %s\n%s\n", strings.Join(arguments, " "), out)
		if err != nil {
			fmt.Println(err)
		}
	}
}

// ---- small words for tests

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func kubectl(t *testing.T, arguments ...string) string {
	t.Helper()
	out, err := k8s.Kubectl(ctx, arguments...)
	must(t, err)
	return strings.TrimSpace(out)
}

func apply(t *testing.T, manifest string) {
	t.Helper()
	must(t, k8s.Apply(ctx, manifest))
}

func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	must(t, k8s.WaitFor(ctx, what, limit, condition))
}

// space makes a namespace for one test; all in it is removed at the end, and the test waits until its volumes are gone too.
func space(t *testing.T) string {
	t.Helper()
	name := "t-" + strings.ToLower(strings.NewReplacer("/", "-", "_", "-", " ", "-").Replace(t.Name()))
	if len(name) > 60 {
		name = name[:60]
	}
	kubectl(t, "create", "namespace", name)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := k8s.Kubectl(ctx, "-n", name, "describe", "pods,pvc")
			if len(out) > 8000 {
				out = out[len(out)-8000:]
			}
			t.Log(out)
		}
		if _, err := k8s.Kubectl(ctx, "delete", "namespace", name, "--wait", "--timeout=2m"); err != nil {
			t.Error(err)
		}
	})
	return name
}

// conditionIs compares a condition of a StorageBackend; `says` must be part of its message.
func conditionIs(backend, kind, status, says string) error {
	var object struct {
		Metadata struct{ Generation int64 }
		Status   struct {
			ObservedGeneration int64
			Conditions         []struct{ Type, Status, Reason, Message string }
		}
	}
	if err := k8s.Get(ctx, &object, "sb", backend); err != nil {
		return err
	}
	for _, condition := range object.Status.Conditions {
		if condition.Type != kind {
			continue
		}
		if condition.Status == status && strings.Contains(condition.Message, says) && object.Status.ObservedGeneration == object.Metadata.Generation {
			return nil
		}
		return fmt.Errorf("%s is %s, %s: %s", kind, condition.Status, condition.Reason, condition.Message)
	}
	return fmt.Errorf("it has no condition %s", kind)
}

// warned looks for a Warning event of an object whose message holds every part.
func warned(namespace, object, reason string, parts ...string) error {
	var list struct {
		Items []struct {
			Reason, Message string
		}
	}
	if err := k8s.Get(ctx, &list, "events", "-n", namespace, "--field-selector", "type=Warning,involvedObject.name="+object); err != nil {
		return err
	}
	seen := []string{}
next:
	for _, event := range list.Items {
		seen = append(seen, event.Reason+": "+event.Message)
		if event.Reason != reason {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(event.Message, part) {
				continue next
			}
		}
		return nil
	}
	return fmt.Errorf("no event %s with %q; there are %q", reason, parts, seen)
}

type claim struct {
	name, class, size string
	block             bool
	mode              string // access mode; ReadWriteOnce when empty
}

func (c claim) manifest(namespace string) string {
	volumeMode, mode := "Filesystem", "ReadWriteOnce"
	if c.block {
		volumeMode = "Block"
	}
	if c.mode != "" {
		mode = c.mode
	}
	return fmt.Sprintf(`
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s, namespace: %s}
spec:
  storageClassName: %s
  volumeMode: %s
  accessModes: [%s]
  resources: {requests: {storage: %s}}
`, c.name, namespace, c.class, volumeMode, mode, c.size)
}

type pod struct {
	name, node, claim, script string
	block, readOnly           bool
	user                      int // not root, with that fsGroup, when not 0
}

// manifest: the volume is /data, or the device /dev/data. The script's shell goes on sleeping after it.
func (p pod) manifest(namespace string) string {
	mount := fmt.Sprintf("volumeMounts: [{name: data, mountPath: /data, readOnly: %t}]", p.readOnly)
	if p.block {
		mount = "volumeDevices: [{name: data, devicePath: /dev/data}]"
	}
	where, who := "", ""
	if p.node != "" {
		where = "nodeSelector: {kubernetes.io/hostname: " + p.node + "}"
	}
	if p.user != 0 {
		who = fmt.Sprintf("securityContext: {runAsUser: %d, runAsNonRoot: true, fsGroup: %d}", p.user, p.user)
	}
	script, _ := json.Marshal("set -e; " + p.script + "; echo ready; exec sleep 2147483647")
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  %s
  %s
  containers:
    - name: main
      image: %s
      imagePullPolicy: Never
      command: [sh, -c, %s]
      %s
  volumes: [{name: data, persistentVolumeClaim: {claimName: %s}}]
`, p.name, namespace, where, who, cluster.BusyboxImage, script, mount, p.claim)
}

// ready waits until the pod's script came to its end, and answers what it printed.
func ready(t *testing.T, namespace, name string) string {
	t.Helper()
	var out string
	eventually(t, "pod "+name+" to be ready", func() error {
		phase, err := k8s.Kubectl(ctx, "-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.phase}")
		if err != nil {
			return err
		}
		if phase == "Pending" {
			return fmt.Errorf("it is Pending")
		}
		if out, err = k8s.Kubectl(ctx, "-n", namespace, "logs", name); err != nil {
			return err
		}
		if phase == "Failed" {
			t.Fatalf("pod %s failed: %s", name, out)
		}
		if !strings.HasSuffix(out, "ready\n") {
			return fmt.Errorf("it says %q", out)
		}
		return nil
	})
	return strings.TrimSuffix(out, "ready\n")
}

// volumeOf answers the name of the claim's volume.
func volumeOf(t *testing.T, namespace, claim string) string {
	t.Helper()
	return kubectl(t, "-n", namespace, "get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}")
}

// onStorage lists what the storage itself holds under the volumes' names, on a node.
func onStorage(t *testing.T, node, directory string) []string {
	t.Helper()
	out, err := k8s.NodeExec(ctx, node, "ls", "-A", directory)
	must(t, err)
	var names []string
	for _, name := range strings.Fields(out) {
		if strings.HasPrefix(strings.TrimLeft(name, ".abcdefghijklmnopqrstuvwxyz-"), "pvc-") || strings.Contains(name, "pvc-") {
			names = append(names, name)
		}
	}
	return names
}

// volumesOf answers the names of the volumes that these files are of.
func volumesOf(files []string) []string {
	var volumes []string
	for _, file := range files {
		volume, _, _ := strings.Cut(file[strings.Index(file, "pvc-"):], ".")
		if !slices.Contains(volumes, volume) {
			volumes = append(volumes, volume)
		}
	}
	return volumes
}

// made answers the volumes that the share holds beside `before`: files of those may still go, of earlier tests.
func made(t *testing.T, before []string) []string {
	t.Helper()
	earlier := volumesOf(before)
	return slices.DeleteFunc(volumesOf(onStorage(t, "node-a", cluster.ShareDir)), func(volume string) bool {
		return slices.Contains(earlier, volume)
	})
}

func directoryOf(class string) string {
	if strings.HasPrefix(class, "share") {
		return cluster.ShareDir
	}
	return "/var/lib/collage/volumes"
}

func contains(names []string, part string) bool {
	for _, name := range names {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}
