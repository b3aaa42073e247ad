package rights

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"collage/e2e/cluster"
)

func volume(name, source string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: PersistentVolume, metadata: {name: %s}, spec: {capacity: {storage: 1Mi}, accessModes: [ReadWriteOnce], %s}}\n---\n", name, source)
}

func class(name, provisioner, labels string) string {
	return fmt.Sprintf("{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: %s, labels: %s}, provisioner: %s}\n---\n", name, labels, provisioner)
}

func attachment(name, attacher string) string {
	return fmt.Sprintf("{apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, metadata: {name: %s}, spec: {attacher: %s, nodeName: node-a, source: {persistentVolumeName: x}}}\n---\n", name, attacher)
}

func driver(name string) string {
	return fmt.Sprintf("{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: %s}, spec: {}}\n---\n", name)
}

// waitForPolicies waits until the API server, which learns of policies a moment after they are made, acts by the last of them.
func waitForPolicies(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx := context.Background()
	err := c.WaitFor(ctx, "the admission policies to be in force", time.Minute, func() error {
		var policies struct {
			Items []struct{ Metadata struct{ Name string } }
		}
		if err := c.Get(ctx, &policies, "validatingadmissionpolicies"); err != nil {
			return err
		}
		for name, manifest := range map[string]string{
			"volumes": volume("probe", "hostPath: {path: /probe}"), "drivers": driver("probe.example.com"),
			"classes": class("probe", "example.com/p", "{}"),
		} {
			command, err := c.Command(ctx, "kubectl", operator, "create", "--dry-run=server", "--filename", "-")
			if err != nil {
				return err
			}
			command.Stdin = strings.NewReader(manifest)
			if out, err := command.CombinedOutput(); err == nil || !strings.Contains(string(out), "the operator of Collage may") {
				return fmt.Errorf("%s: %s", name, out)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func testOperator(t *testing.T, c *cluster.Cluster) {
	ctx := context.Background()
	must := func(arguments ...string) {
		t.Helper()
		if _, err := c.Kubectl(ctx, arguments...); err != nil {
			t.Fatal(err)
		}
	}
	taint := `{"key":"local.collage.storage/agent-not-ready","effect":"NoSchedule"}`
	other := `{"key":"example.com/other","effect":"NoSchedule"}`
	taints := func(list ...string) string { return `{"spec":{"taints":[` + strings.Join(list, ",") + `]}}` }
	must("patch", "node", "node-a", "--type=merge", "-p", taints(taint, other))

	// What others have, and what is ours.
	if err := c.Apply(ctx, volume("theirs", "csi: {driver: ebs.example.com, volumeHandle: x}")+class("theirs", "ebs.example.com", "{}")+
		class("by-hand", "local.collage.storage", "{}")+attachment("theirs", "ebs.example.com")+attachment("ours", "local.collage.storage")+
		driver("ebs.example.com")+`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: claim, annotations: {volume.kubernetes.io/selected-node: node-a, keep: me}}, spec: {storageClassName: none, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}
---
{apiVersion: collage.storage/v1beta1, kind: StorageBackend, metadata: {name: own}, spec: {local: {directory: /var/lib/collage/volumes}}}
`); err != nil {
		t.Fatal(err)
	}
	delete := func(path string) []string { return []string{"delete", "--raw", path} }
	forbidden := func(verb, resource string) string { return "cannot " + verb + " resource \"" + resource + "\"" }
	applyStatus := []string{"apply", "--server-side", "--force-conflicts", "--subresource=status"} // a patch, without reading it first
	attached := func(name string) string {
		return fmt.Sprintf("{apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, metadata: {name: %s}, status: {attached: true}}", name)
	}
	const notOurs = "named <kind>.collage.storage only"
	label := `{"metadata":{"labels":{"a":"b"}}}`
	owned := `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"gone","uid":"0"}]}}` // the garbage collector deletes it
	oneField := "may only take the annotation volume.kubernetes.io/selected-node off"

	run(t, c, []string{operator}, []try{
		{name: "makes a volume of ours", arguments: []string{"create"}, manifest: volume("ours", "csi: {driver: local.collage.storage, volumeHandle: own/x}")},
		{name: "makes a volume of the host's disk", arguments: []string{"create"}, manifest: volume("root", "hostPath: {path: /}"), refusal: notOurs},
		{name: "makes a volume of another driver", arguments: []string{"create"}, manifest: volume("x", "csi: {driver: ebs.example.com, volumeHandle: x}"), refusal: notOurs},
		{name: "changes a volume of ours", arguments: patch("pv", "ours", label)},
		{name: "changes a volume of another driver", arguments: patch("pv", "theirs", label), refusal: notOurs},
		{name: "deletes a volume of another driver", arguments: delete("/api/v1/persistentvolumes/theirs"), refusal: notOurs},
		{name: "deletes a volume of ours", arguments: delete("/api/v1/persistentvolumes/ours")},

		{name: "says that ours is attached", arguments: applyStatus, manifest: attached("ours")},
		{name: "says that another driver's is attached", arguments: applyStatus, manifest: attached("theirs"), refusal: notOurs},
		{name: "protects an attachment of another driver", arguments: patch("volumeattachment", "theirs", `{"metadata":{"finalizers":["external-attacher/x"]}}`), refusal: notOurs},
		{name: "protects ours", arguments: patch("volumeattachment", "ours", `{"metadata":{"finalizers":["external-attacher/local-collage-storage"]}}`)},
		{name: "lets go of ours", arguments: patch("volumeattachment", "ours", `{"metadata":{"finalizers":null}}`)},
		{name: "has an attachment deleted", arguments: patch("volumeattachment", "ours", owned), refusal: "finalizers, annotations and the status of a VolumeAttachment only"},
		{name: "deletes an attachment", arguments: delete("/apis/storage.k8s.io/v1/volumeattachments/ours"), refusal: forbidden("delete", "volumeattachments")},

		{name: "makes a class of ours", arguments: []string{"create"}, manifest: class("ours", "local.collage.storage", "{collage.storage/backend: own}")},
		{name: "makes a class of another driver", arguments: []string{"create"}, manifest: class("x", "ebs.example.com", "{collage.storage/backend: own}"), refusal: "StorageClasses with the label"},
		{name: "deletes a class of another driver", arguments: delete("/apis/storage.k8s.io/v1/storageclasses/theirs"), refusal: "StorageClasses with the label"},
		{name: "deletes a class that a person made", arguments: delete("/apis/storage.k8s.io/v1/storageclasses/by-hand"), refusal: "StorageClasses with the label"},
		{name: "labels that class first", arguments: patch("storageclass", "by-hand", `{"metadata":{"labels":{"collage.storage/backend":"own"}}}`), refusal: "StorageClasses with the label"},
		{name: "deletes a class of ours", arguments: delete("/apis/storage.k8s.io/v1/storageclasses/ours")},

		{name: "makes a driver of ours", arguments: []string{"create"}, manifest: driver("local.collage.storage")},
		{name: "makes another driver", arguments: []string{"create"}, manifest: driver("nfs.example.com"), refusal: notOurs},
		{name: "changes another driver", arguments: patch("csidriver", "ebs.example.com", label), refusal: notOurs},

		{name: "writes a backend's status", arguments: applyStatus, manifest: "{apiVersion: collage.storage/v1beta1, kind: StorageBackend, metadata: {name: own}, status: {observedGeneration: 1}}"},
		{name: "writes a backend's finalizer", arguments: patch("storagebackend", "own", `{"metadata":{"finalizers":["collage.storage/backend"]}}`)},
		{name: "takes it away", arguments: patch("storagebackend", "own", `{"metadata":{"finalizers":null}}`)},
		{name: "changes a backend's spec", arguments: patch("storagebackend", "own", `{"spec":{"paused":true}}`), refusal: "finalizers and the status of a StorageBackend only"},
		{name: "has a backend deleted", arguments: patch("storagebackend", "own", owned), refusal: "finalizers and the status of a StorageBackend only"},
		{name: "says that another cluster is gone", arguments: patch("storagebackend", "own", `{"metadata":{"annotations":{"collage.storage/cluster-is-gone":"x"}}}`), refusal: "finalizers and the status of a StorageBackend only"},
		{name: "deletes a backend", arguments: delete("/apis/collage.storage/v1beta1/storagebackends/own"), refusal: forbidden("delete", "storagebackends")},

		{name: "gives a claim back to the scheduler", arguments: patch("pvc", "claim", `{"metadata":{"annotations":{"volume.kubernetes.io/selected-node":null}}}`)},
		{name: "chooses a node for a claim", arguments: patch("pvc", "claim", `{"metadata":{"annotations":{"volume.kubernetes.io/selected-node":"node-b"}}}`), refusal: oneField},
		{name: "takes another annotation off a claim", arguments: patch("pvc", "claim", `{"metadata":{"annotations":{"keep":null}}}`), refusal: oneField},
		{name: "binds a claim", arguments: patch("pvc", "claim", `{"spec":{"volumeName":"x"}}`), refusal: oneField},
		{name: "labels a claim", arguments: patch("pvc", "claim", label), refusal: oneField},
		{name: "has a claim deleted", arguments: patch("pvc", "claim", owned), refusal: oneField},
		{name: "deletes a claim", arguments: delete("/api/v1/namespaces/default/persistentvolumeclaims/claim"), refusal: forbidden("delete", "persistentvolumeclaims")},

		{name: "writes an intent", arguments: []string{"create", "configmap", "collage-intents-own", "--namespace", namespace}},
		{name: "writes another ConfigMap", arguments: []string{"create", "configmap", "other", "--namespace", namespace}, refusal: "ConfigMaps named collage-intents-<backend> only"},
		{name: "writes an intent elsewhere", arguments: []string{"create", "configmap", "collage-intents-own"}, refusal: forbidden("create", "configmaps")},
		{name: "makes another Lease", arguments: []string{"create"}, manifest: "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: kube-scheduler, namespace: " + namespace + "}}", refusal: "the Lease collage-operator"},
		{name: "makes its Lease", arguments: []string{"create"}, manifest: "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: collage-operator, namespace: " + namespace + "}}"},

		{name: "reads a Secret of its namespace by name", arguments: []string{"get", "secret", "storage", "--namespace", namespace}},
		{name: "reads a Secret of a listed namespace", arguments: []string{"get", "secret", "storage", "--namespace", "team-a"}},
		{name: "reads a Secret of another namespace", arguments: []string{"get", "secret", "storage", "--namespace", "default"}, refusal: forbidden("get", "secrets")},
		{name: "lists Secrets", arguments: []string{"get", "secrets", "--namespace", namespace}, refusal: forbidden("list", "secrets")},
		{name: "watches Secrets", arguments: []string{"get", "--raw", "/api/v1/namespaces/" + namespace + "/secrets?watch=true&timeoutSeconds=1"}, refusal: forbidden("watch", "secrets")},
		{name: "lists Secrets of all namespaces", arguments: []string{"get", "secrets", "--all-namespaces"}, refusal: forbidden("list", "secrets")},
		{name: "changes a Secret", arguments: patch("secret", "storage", label, "--namespace", namespace), refusal: forbidden("patch", "secrets")},

		{name: "makes a pod", arguments: []string{"run", "x", "--image=x", "--namespace", namespace}, refusal: forbidden("create", "pods")},
		{name: "lists pods", arguments: []string{"get", "pods", "--all-namespaces"}, refusal: forbidden("list", "pods")},
		{name: "makes itself a token", arguments: []string{"create", "token", "collage-node", "--namespace", namespace}, refusal: forbidden("create", "serviceaccounts/token")},
		{name: "gives itself a right", arguments: patch("clusterrole", "collage-operator", `{"rules":[]}`), refusal: forbidden("get", "clusterroles")},

		{name: "labels a Node", arguments: patch("node", "node-a", label), refusal: "nothing of a Node but its taints"},
		{name: "holds a Node by a finalizer", arguments: patch("node", "node-a", `{"metadata":{"finalizers":["example.com/x"]}}`), refusal: "nothing of a Node but its taints"},
		{name: "has a Node deleted", arguments: patch("node", "node-a", owned), refusal: "nothing of a Node but its taints"},
		{name: "makes a Node another machine", arguments: patch("node", "node-a", `{"spec":{"providerID":"example://other"}}`), refusal: "nothing of a Node but its taints"},
		{name: "cordons a Node", arguments: patch("node", "node-a", `{"spec":{"unschedulable":true}}`), refusal: "nothing of a Node but its taints"},
		{name: "adds a taint", arguments: patch("node", "node-a", taints(taint, other, `{"key":"x","effect":"NoExecute"}`)), refusal: "may only take off taints"},
		{name: "takes off another's taint", arguments: patch("node", "node-a", taints(taint)), refusal: "may only take off taints"},
		{name: "takes off its own taint", arguments: patch("node", "node-a", taints(other))},
	})
	// The policies are for the operator alone.
	run(t, c, nil, []try{
		{name: "a person labels a Node", arguments: patch("node", "node-a", label)},
		{name: "a person makes a hostPath volume", arguments: []string{"create"}, manifest: volume("persons", "hostPath: {path: /x}")},
		{name: "a person changes a backend", arguments: patch("storagebackend", "own", `{"spec":{"paused":true}}`)},
	})
	must("delete", "pvc/claim", "pv/theirs", "pv/persons", "storageclass/theirs", "storageclass/by-hand", "volumeattachment/theirs", "volumeattachment/ours", "csidriver/ebs.example.com", "csidriver/local.collage.storage", "storagebackend/own")
}
