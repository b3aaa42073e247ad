// Package rights tries on a real API server what the chart's roles and admission policies allow and refuse, and what the
// chart leaves behind.
package rights

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"collage/e2e/cluster"
)

const namespace = "collage-system"

var (
	operator = "--as=system:serviceaccount:" + namespace + ":collage-operator"
	agent    = "--as=system:serviceaccount:" + namespace + ":collage-node"
)

// onNode is what a token that is bound to a pod on that node says of itself.
func onNode(node string) string {
	return "--as-user-extra=authentication.kubernetes.io/node-name=" + node
}

func TestMain(m *testing.M) {
	cluster.HandleReexec()
	os.Exit(m.Run())
}

// boot brings up a cluster with the chart installed. The images are missing: no process of Collage runs, its rights are there.
func boot(t *testing.T) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Open("rights", "", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	t.Cleanup(func() {
		if err := c.Down(os.Stderr); err != nil {
			t.Error(err)
		}
	})
	if err := c.Up(ctx, os.Stderr); err != nil {
		t.Fatal(err)
	}
	root, err := cluster.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{namespace, "team-a"} {
		if _, err := c.Kubectl(ctx, "create", "namespace", name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Helm(ctx, "install", "collage", filepath.Join(root, "helm/collage"), "--namespace", namespace,
		"--set", "image.repository=localhost/none,image.pullPolicy=Never,rbac.secretNamespaces={team-a}"); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRights(t *testing.T) {
	c := boot(t)
	ctx := context.Background()
	must := func(arguments ...string) {
		t.Helper()
		if _, err := c.Kubectl(ctx, arguments...); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range cluster.Nodes {
		if err := c.Apply(ctx, "apiVersion: collage.storage/v1beta1\nkind: StorageNode\nmetadata: {name: "+node.Name+"}\nspec: {}\n"); err != nil {
			t.Fatal(err)
		}
	}
	must("create", "secret", "generic", "storage", "--namespace", namespace)
	must("create", "secret", "generic", "storage", "--namespace", "team-a")
	must("create", "secret", "generic", "storage", "--namespace", "default")

	status := `{"status":{"agentVersion":"1"}}`
	taint := `{"key":"local.collage.storage/agent-not-ready","effect":"NoSchedule"}`
	other := `{"key":"example.com/other","effect":"NoSchedule"}`
	taints := func(list ...string) string { return `{"spec":{"taints":[` + strings.Join(list, ",") + `]}}` }
	must("patch", "node", "node-a", "--type=merge", "-p", taints(taint, other))

	patch := func(who []string, kind, name, change string, more ...string) []string {
		return append(append(who, "patch", kind, name, "--type=merge", "-p", change), more...)
	}
	subresource := "--subresource=status"
	cases := []struct {
		name      string
		arguments []string
		refusal   string // "": allowed
	}{
		{"an agent writes the status of its own node", patch([]string{agent, onNode("node-a")}, "storagenode", "node-a", status, subresource), ""},
		{"an agent writes the status of another node", patch([]string{agent, onNode("node-a")}, "storagenode", "node-b", status, subresource),
			"the agent of node node-a may not write StorageNode node-b"},
		{"a token without a node writes a status", patch([]string{agent}, "storagenode", "node-a", status, subresource),
			"the token of this agent names no node"},
		{"an agent gives orders to itself", patch([]string{agent, onNode("node-a")}, "storagenode", "node-a", `{"spec":{"operations":[]}}`),
			"cannot patch resource \"storagenodes\""},
		{"an agent deletes its StorageNode", []string{agent, onNode("node-a"), "delete", "storagenode", "node-a"}, "cannot delete"},
		{"an agent reads StorageNodes", []string{agent, "get", "storagenodes"}, ""},
		{"an agent reads StorageBackends", []string{agent, "get", "storagebackends"}, ""},
		{"an agent reads a Secret", []string{agent, "get", "secret", "storage", "--namespace", namespace}, "cannot get resource \"secrets\""},
		{"an agent lists claims", []string{agent, "get", "pvc"}, "cannot list"},
		{"an agent patches its Node", patch([]string{agent, onNode("node-a")}, "node", "node-a", `{"metadata":{"labels":{"a":"b"}}}`), "cannot get resource \"nodes\""},

		{"the operator reads a Secret of its namespace", []string{operator, "get", "secret", "storage", "--namespace", namespace}, ""},
		{"the operator reads a Secret of a listed namespace", []string{operator, "get", "secret", "storage", "--namespace", "team-a"}, ""},
		{"the operator reads a Secret of another namespace", []string{operator, "get", "secret", "storage", "--namespace", "default"}, "cannot get resource \"secrets\""},
		{"the operator lists Secrets", []string{operator, "get", "secrets", "--namespace", namespace}, "cannot list"},
		{"the operator makes a pod", []string{operator, "run", "x", "--image=x", "--namespace", namespace}, "cannot create resource \"pods\""},
		{"the operator changes a backend's status", patch([]string{operator}, "storagebackend", "none", `{"status":{}}`, subresource), "not found"},
		{"the operator deletes a backend", []string{operator, "delete", "storagebackend", "none"}, "cannot delete"},
		{"the operator labels a Node", patch([]string{operator}, "node", "node-a", `{"metadata":{"labels":{"a":"b"}}}`), "nothing of a Node but its taints"},
		{"the operator cordons a Node", patch([]string{operator}, "node", "node-a", `{"spec":{"unschedulable":true}}`), "nothing of a Node but its taints"},
		{"the operator adds a taint", patch([]string{operator}, "node", "node-a", taints(taint, other, `{"key":"x","effect":"NoExecute"}`)), "may only take off taints"},
		{"the operator takes off another's taint", patch([]string{operator}, "node", "node-a", taints(taint)), "may only take off taints"},
		{"the operator takes off its own taint", patch([]string{operator}, "node", "node-a", taints(other)), ""},

		{"a person labels a Node", patch(nil, "node", "node-a", `{"metadata":{"labels":{"a":"b"}}}`), ""},
		{"a person writes any StorageNode", patch(nil, "storagenode", "node-b", status, subresource), ""},
	}
	for _, each := range cases {
		t.Run(each.name, func(t *testing.T) {
			_, err := c.Kubectl(ctx, each.arguments...)
			if each.refusal == "" && err != nil {
				t.Error(err)
			}
			if each.refusal != "" && (err == nil || !strings.Contains(err.Error(), each.refusal)) {
				t.Errorf("want a refusal with %q, got %v", each.refusal, err)
			}
		})
	}

	t.Run("the examples are accepted", func(t *testing.T) {
		root, err := cluster.RepositoryRoot()
		if err != nil {
			t.Fatal(err)
		}
		must("apply", "--filename", filepath.Join(root, "manifests/examples"))
		names, err := c.Kubectl(ctx, "get", "storagebackends", "-o", "name")
		if err != nil || !strings.Contains(names, "/disk") || !strings.Contains(names, "/share") {
			t.Errorf("got %q, %v", names, err)
		}
	})

	t.Run("uninstalling leaves the CRDs and what they hold", func(t *testing.T) {
		if _, err := c.Helm(ctx, "uninstall", "collage", "--namespace", namespace); err != nil {
			t.Fatal(err)
		}
		names, err := c.Kubectl(ctx, "get", "storagenodes", "-o", "name")
		if err != nil || !strings.Contains(names, "node-a") {
			t.Errorf("got %q, %v", names, err)
		}
	})
	t.Run("the plain manifests install the same without helm", func(t *testing.T) {
		root, err := cluster.RepositoryRoot()
		if err != nil {
			t.Fatal(err)
		}
		must("apply", "--filename", filepath.Join(root, "crds"))
		must("apply", "--kustomize", filepath.Join(root, "manifests"))
		image, err := c.Kubectl(ctx, "get", "daemonset", "collage-node", "--namespace", namespace, "-o", "jsonpath={.spec.template.spec.containers[0].image}")
		if err != nil || image != "registry.example.com/collage-node:0.1.0" {
			t.Errorf("got %q, %v", image, err)
		}
		must("delete", "--kustomize", filepath.Join(root, "manifests"), "--wait=false")
		if _, err := c.Kubectl(ctx, "get", "storagebackend", "disk"); err != nil {
			t.Errorf("deleting the manifests deleted the backends: %v", err)
		}
	})
}
