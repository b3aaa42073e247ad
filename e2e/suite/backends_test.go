package suite

import (
	"fmt"
	"strings"
	"testing"

	"collage/e2e/cluster"
)

// Backends of their own, each in a folder of the share, so that a test may do to them what it likes.

// backend makes one of kind image, to be called before space(): at the end the claims must go first. spec goes on after the driver block, in YAML's flow style.
func backend(t *testing.T, name, spec string) (directory string) {
	t.Helper()
	directory = cluster.ShareDir + "/" + name
	_, err := k8s.NodeExec(ctx, "node-a", "mkdir", "-p", directory)
	must(t, err)
	apply(t, fmt.Sprintf("{apiVersion: collage.storage/v1beta1, kind: StorageBackend, metadata: {name: %s}, spec: {image: {directory: %s}, %s}}", name, directory, spec))
	t.Cleanup(func() {
		if _, err := k8s.Kubectl(ctx, "delete", "sb", name, "--ignore-not-found", "--timeout=1m"); err != nil {
			t.Error(err)
		}
		if _, err := k8s.NodeExec(ctx, "node-a", "rm", "-rf", directory); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "backend "+name, func() error { return conditionIs(name, "Reachable", "True", "") })
	return directory
}

// change patches fields of a StorageBackend.
func change(t *testing.T, name, spec string) {
	t.Helper()
	kubectl(t, "patch", "sb", name, "--type=merge", "-p", `{"spec":`+spec+`}`)
}

func gone(kind, name string) error {
	out, err := k8s.Kubectl(ctx, "get", kind, name, "--ignore-not-found", "-o", "name")
	if err == nil && out != "" {
		err = fmt.Errorf("%s is still there", strings.TrimSpace(out))
	}
	return err
}

func TestLimitsHoldAmongClaimsThatComeTogetherAndRaisedOnesWakeThem(t *testing.T) {
	t.Parallel()
	backend(t, "limited", "storageClasses: [{name: limited, volumeBindingMode: Immediate}], limits: {maxVolumes: 3, maxProvisioned: 3Mi, maxVolumeSize: 2Mi}")
	namespace := space(t)
	manifest := claim{name: "large", class: "limited", size: "3Mi"}.manifest(namespace)
	for i := range 5 {
		manifest += claim{name: fmt.Sprintf("c%d", i), class: "limited", size: "1Mi"}.manifest(namespace)
	}
	apply(t, manifest)
	count := func(want int) func() error {
		return func() error {
			out, err := k8s.Kubectl(ctx, "-n", namespace, "get", "pvc", "-o", "jsonpath={.items[*].status.phase}")
			if got := strings.Count(out, "Bound"); err == nil && got != want {
				err = fmt.Errorf("%d are Bound", got)
			}
			return err
		}
	}
	eventually(t, "three volumes", count(3))
	eventually(t, "the event of the large claim", func() error {
		return warned(namespace, "large", "ProvisioningFailed", "spec.limits.maxVolumeSize is 2Mi", "raise the limit")
	})
	out := kubectl(t, "-n", namespace, "get", "pvc", "-o", `jsonpath={range .items[?(@.status.phase=="Pending")]}{.metadata.name} {end}`)
	for _, name := range strings.Fields(out) {
		if name != "large" {
			eventually(t, "the event of "+name, func() error {
				return warned(namespace, name, "ProvisioningFailed", "spec.limits.max", "raise the limit")
			})
		}
	}
	must(t, count(3)())
	change(t, "limited", `{"limits":{"maxVolumes":6,"maxProvisioned":"8Mi","maxVolumeSize":"3Mi"}}`)
	eventually(t, "the others", count(6))
}

func TestNamespacesAreLetInByTheirLabels(t *testing.T) {
	t.Parallel()
	backend(t, "guarded", "storageClasses: [{name: guarded, volumeBindingMode: Immediate}], allowedNamespaces: {matchLabels: {storage: allowed}}")
	namespace := space(t)
	apply(t, claim{name: "first", class: "guarded", size: "1Mi"}.manifest(namespace))
	eventually(t, "the refusal", func() error {
		return warned(namespace, "first", "ProvisioningFailed", "spec.allowedNamespaces", namespace)
	})
	kubectl(t, "label", "namespace", namespace, "storage=allowed")
	eventually(t, "the volume", func() error { return bound(namespace, 1) })
	kubectl(t, "label", "namespace", namespace, "storage-")
	apply(t, claim{name: "second", class: "guarded", size: "1Mi"}.manifest(namespace))
	eventually(t, "the second refusal", func() error {
		return warned(namespace, "second", "ProvisioningFailed", "spec.allowedNamespaces", namespace)
	})
	if phase := kubectl(t, "-n", namespace, "get", "pvc", "first", "-o", "jsonpath={.status.phase}"); phase != "Bound" {
		t.Errorf("the first claim is %s", phase)
	}
}

func TestABackendInUseIsDeletedByItsPolicy(t *testing.T) {
	t.Parallel()
	backend(t, "blocked", "storageClasses: [{name: blocked, volumeBindingMode: Immediate}]")
	kept := backend(t, "deleted", "deletionPolicy: Delete, storageClasses: [{name: deleted, volumeBindingMode: Immediate, reclaimPolicy: Retain}]")
	namespace := space(t)
	apply(t, claim{name: "b", class: "blocked", size: "1Mi"}.manifest(namespace)+
		claim{name: "gone", class: "deleted", size: "1Mi"}.manifest(namespace)+
		claim{name: "bound", class: "deleted", size: "1Mi"}.manifest(namespace))
	eventually(t, "the volumes", func() error { return bound(namespace, 3) })
	holds, released, used := volumeOf(t, namespace, "b"), volumeOf(t, namespace, "gone"), volumeOf(t, namespace, "bound")
	kubectl(t, "-n", namespace, "delete", "pvc", "gone")
	kubectl(t, "delete", "sb", "blocked", "deleted", "--wait=false")
	eventually(t, "the volume that blocks to be named", func() error {
		return conditionIs("blocked", "Ready", "False", "1 PersistentVolumes are on this backend ("+holds+"), 1 of them bound")
	})
	eventually(t, "the released volume to go", func() error { return gone("pv", released) })
	names := onStorage(t, "node-a", kept)
	if contains(names, released) || !contains(names, used) {
		t.Errorf("the storage holds %q; %s should be gone, %s is bound", names, released, used)
	}
	eventually(t, "the bound one to be named", func() error { return conditionIs("deleted", "Ready", "False", used) })
	apply(t, claim{name: "late", class: "blocked", size: "1Mi"}.manifest(namespace))
	eventually(t, "the new claim to be refused", func() error { return warned(namespace, "late", "ProvisioningFailed", "is being deleted") })
	kubectl(t, "-n", namespace, "delete", "pvc", "--all")
	eventually(t, "the backend to go", func() error { return gone("sb", "blocked") })
	eventually(t, "its class to go", func() error { return gone("sc", "blocked") })
	eventually(t, "the other backend to go", func() error { return gone("sb", "deleted") })
	if names := onStorage(t, "node-a", kept); len(names) > 0 {
		t.Errorf("the storage still holds %q", names)
	}
}

func TestClassesAreKeptMadeAnewAndNeverTakenFromOthers(t *testing.T) {
	t.Parallel()
	apply(t, `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: foreign}, provisioner: other.example.com}`)
	t.Cleanup(func() { kubectl(t, "delete", "sc", "foreign", "--ignore-not-found") })
	backend(t, "classes", "storageClasses: [{name: foreign}, {name: own}]")
	eventually(t, "the conflict", func() error { return conditionIs("classes", "Ready", "False", `StorageClass "foreign"`) })
	// Drift is set right by the watch, not by a look once a minute.
	kubectl(t, "patch", "sc", "own", "-p", `{"allowVolumeExpansion":true}`)
	kubectl(t, "patch", "csidriver", "image.collage.storage", "-p", `{"spec":{"storageCapacity":false}}`)
	eventually(t, "drift to be set right", func() error {
		class, err := k8s.Kubectl(ctx, "get", "sc", "own", "-o", "jsonpath={.allowVolumeExpansion}")
		driver, other := k8s.Kubectl(ctx, "get", "csidriver", "image.collage.storage", "-o", "jsonpath={.spec.storageCapacity}")
		if err == nil && other == nil && class != "true" && driver == "true" {
			return nil
		}
		return fmt.Errorf("class %s %v, driver %s %v", class, err, driver, other)
	})
	// An immutable field: the class is another object afterwards.
	before := kubectl(t, "get", "sc", "own", "-o", "jsonpath={.metadata.uid}")
	change(t, "classes", `{"storageClasses":[{"name":"own","reclaimPolicy":"Retain"}]}`)
	eventually(t, "the class to be made anew", func() error {
		out, err := k8s.Kubectl(ctx, "get", "sc", "own", "-o", "jsonpath={.reclaimPolicy} {.metadata.uid}")
		if err == nil && (!strings.HasPrefix(out, "Retain ") || strings.HasSuffix(out, before)) {
			err = fmt.Errorf("it is %s", out)
		}
		return err
	})
	eventually(t, "no conflict any more", func() error { return conditionIs("classes", "Ready", "True", "") })
	if provisioner := kubectl(t, "get", "sc", "foreign", "-o", "jsonpath={.provisioner}"); provisioner != "other.example.com" {
		t.Errorf("the foreign class has provisioner %s", provisioner)
	}
	// The capacity objects of the class too.
	selector := "collage.storage/backend=classes"
	kubectl(t, "-n", system, "delete", "csistoragecapacities", "-l", selector)
	eventually(t, "the capacity to be told again", func() error {
		out, err := k8s.Kubectl(ctx, "-n", system, "get", "csistoragecapacities", "-l", selector, "-o", "name")
		if err == nil && out == "" {
			err = fmt.Errorf("there is none")
		}
		return err
	})
}

func TestAShareThatWasSwappedIsLeftAloneUntilTheOldOneIsBack(t *testing.T) {
	t.Parallel()
	directory := backend(t, "swapped", "storageClasses: [{name: swapped, volumeBindingMode: Immediate}]")
	namespace := space(t)
	apply(t, claim{name: "c", class: "swapped", size: "1Mi"}.manifest(namespace))
	eventually(t, "the volume", func() error { return bound(namespace, 1) })
	volume := volumeOf(t, namespace, "c")
	marker := directory + "/.collage-system-id"
	_, err := k8s.NodeExec(ctx, "node-a", "sh", "-c", "mv "+marker+" "+directory+"/.old && echo another-share > "+marker)
	must(t, err)
	kubectl(t, "-n", namespace, "delete", "pvc", "c", "--wait=false")
	// A node refuses, or both have looked by themselves before that and are not asked any more.
	eventually(t, "the refusal", func() error {
		if warned("default", volume, "VolumeFailedDelete", `no node reaches backend "swapped"`) == nil {
			return nil
		}
		return warned("default", volume, "VolumeFailedDelete", "another-share")
	})
	eventually(t, "the condition", func() error { return conditionIs("swapped", "Reachable", "False", "another-share") })
	must(t, conditionIs("swapped", "Degraded", "True", "another-share"))
	if names := onStorage(t, "node-a", directory); !contains(names, volume) {
		t.Errorf("the storage holds %q, not %s", names, volume)
	}
	_, err = k8s.NodeExec(ctx, "node-a", "mv", directory+"/.old", marker)
	must(t, err)
	eventually(t, "the volume to go now", func() error { return gone("pv", volume) })
	if names := onStorage(t, "node-a", directory); contains(names, volume) {
		t.Errorf("the storage still holds %q", names)
	}
}
