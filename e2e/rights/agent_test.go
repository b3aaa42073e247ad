package rights

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"collage/e2e/cluster"
)

// identity writes a kubeconfig with this token and nothing else, and answers the argument of kubectl that names it.
func identity(t *testing.T, c *cluster.Cluster, token string) string {
	t.Helper()
	var config struct {
		Clusters []struct{ Cluster json.RawMessage } `json:"clusters"`
	}
	out, err := c.Kubectl(context.Background(), "config", "view", "--raw", "--flatten", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), &config); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":%s}],
"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{"token":"%s"}}]}`, config.Clusters[0].Cluster, token)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--kubeconfig=" + file
}

// agentOn answers an identity: the token that the kubelet would give the DaemonSet's pod on that node.
func agentOn(t *testing.T, c *cluster.Cluster, node string) string {
	t.Helper()
	ctx := context.Background()
	var token string
	err := c.WaitFor(ctx, "the agent's pod on "+node, time.Minute, func() error {
		var pods struct {
			Items []struct{ Metadata struct{ Name, UID string } }
		}
		if err := c.Get(ctx, &pods, "pods", "--namespace", namespace, "--selector", "app.kubernetes.io/component=node", "--field-selector", "spec.nodeName="+node); err != nil {
			return err
		}
		if len(pods.Items) != 1 {
			return fmt.Errorf("there are %d", len(pods.Items))
		}
		out, err := c.Kubectl(ctx, "create", "token", "collage-node", "--namespace", namespace, "--bound-object-kind=Pod",
			"--bound-object-name="+pods.Items[0].Metadata.Name, "--bound-object-uid="+pods.Items[0].Metadata.UID)
		token = strings.TrimSpace(out)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return identity(t, c, token)
}

func testAgent(t *testing.T, c *cluster.Cluster) {
	ctx := context.Background()
	status := func(node string) string {
		return "{apiVersion: collage.storage/v1beta1, kind: StorageNode, metadata: {name: " + node + "}, status: {agentVersion: '1'}}"
	}
	apply := []string{"apply", "--server-side", "--field-manager=test"}
	applyStatus := append(apply, "--subresource=status")
	forbidden := func(verb, resource string) string { return "cannot " + verb + " resource \"" + resource + "\"" }

	here := agentOn(t, c, "node-a")
	run(t, c, []string{here}, []try{
		{name: "writes the status of its own StorageNode", arguments: applyStatus, manifest: status("node-a")},
		{name: "writes the status of another", arguments: applyStatus, manifest: status("node-b"), refusal: "the agent of node node-a may not write StorageNode node-b"},
		{name: "gives orders to itself", arguments: apply, manifest: "{apiVersion: collage.storage/v1beta1, kind: StorageNode, metadata: {name: node-a}, spec: {operations: []}}", refusal: forbidden("patch", "storagenodes")},
		{name: "makes a StorageNode", arguments: []string{"create"}, manifest: status("node-c"), refusal: forbidden("create", "storagenodes")},
		{name: "deletes its StorageNode", arguments: []string{"delete", "--raw", "/apis/collage.storage/v1beta1/storagenodes/node-a"}, refusal: forbidden("delete", "storagenodes")},
		{name: "lists StorageBackends", arguments: []string{"get", "storagebackends"}},
		{name: "asks for its StorageNode by name", arguments: []string{"get", "storagenodes", "--field-selector=metadata.name=node-a"}},
		{name: "writes a backend's status", arguments: applyStatus, manifest: "{apiVersion: collage.storage/v1beta1, kind: StorageBackend, metadata: {name: x}, status: {}}", refusal: forbidden("patch", "storagebackends/status")},
		{name: "lists claims", arguments: []string{"get", "pvc", "--all-namespaces"}, refusal: forbidden("list", "persistentvolumeclaims")},
		{name: "lists volumes", arguments: []string{"get", "pv"}, refusal: forbidden("list", "persistentvolumes")},
		{name: "lists pods of its node", arguments: []string{"get", "pods", "--all-namespaces", "--field-selector=spec.nodeName=node-a"}, refusal: forbidden("list", "pods")},
		{name: "lists attachments", arguments: []string{"get", "volumeattachments"}, refusal: forbidden("list", "volumeattachments")},
		{name: "reads its Node", arguments: []string{"get", "node", "node-a"}, refusal: forbidden("get", "nodes")},
		{name: "labels its Node", arguments: apply, manifest: "{apiVersion: v1, kind: Node, metadata: {name: node-a, labels: {a: b}}}", refusal: forbidden("patch", "nodes")},
		{name: "reads a Secret", arguments: []string{"get", "secret", "storage", "--namespace", namespace}, refusal: forbidden("get", "secrets")},
		{name: "reads an intent", arguments: []string{"get", "configmap", "collage-intents-x", "--namespace", namespace}, refusal: forbidden("get", "configmaps")},
		{name: "makes itself a token of the operator", arguments: []string{"create", "token", "collage-operator", "--namespace", namespace}, refusal: forbidden("create", "serviceaccounts/token")},
		{name: "takes the Lease", arguments: []string{"get", "lease", "collage-operator", "--namespace", namespace}, refusal: forbidden("get", "leases")},
	})
	run(t, c, []string{agentOn(t, c, "node-b")}, []try{
		{name: "the other agent writes its own", arguments: applyStatus, manifest: status("node-b")},
		{name: "the other agent writes this one's", arguments: applyStatus, manifest: status("node-a"), refusal: "the agent of node node-b may not write StorageNode node-a"},
	})

	unbound, err := c.Kubectl(ctx, "create", "token", "collage-node", "--namespace", namespace)
	if err != nil {
		t.Fatal(err)
	}
	run(t, c, []string{identity(t, c, strings.TrimSpace(unbound))}, []try{
		{name: "a token that is bound to no pod", arguments: applyStatus, manifest: status("node-a"), refusal: "the token of this agent names no node"},
	})

	t.Run("the API server knows of no other right", func(t *testing.T) {
		out, err := c.Kubectl(ctx, here, "auth", "can-i", "--list", "--no-headers")
		if err != nil {
			t.Fatal(err)
		}
		var rights []string
		for _, line := range strings.Split(out, "\n") {
			fields := strings.Fields(line)
			// Everybody may ask what they may do, and look at the API's documents.
			if len(fields) == 0 || strings.HasPrefix(fields[0], "self") || strings.HasPrefix(fields[0], "[") {
				continue
			}
			rights = append(rights, strings.Join(fields, " "))
		}
		want := []string{"storagenodes.collage.storage/status [] [] [patch]", "storagebackends.collage.storage [] [] [list watch]", "storagenodes.collage.storage [] [] [list watch]"}
		for _, right := range want {
			if !strings.Contains("\n"+strings.Join(rights, "\n")+"\n", "\n"+right+"\n") && !strings.Contains("\n"+strings.Join(rights, "\n")+"\n", "\n"+strings.Replace(right, ".collage.storage/status", "/status.collage.storage", 1)+"\n") {
				t.Errorf("no %q", right)
			}
		}
		if len(rights) != len(want) {
			t.Errorf("rights are\n  %s", strings.Join(rights, "\n  "))
		}
	})

	t.Run("a person writes any StorageNode", func(t *testing.T) {
		if _, err := c.Kubectl(ctx, patch("storagenode", "node-b", `{"status":{"agentVersion":"2"}}`, "--subresource=status")...); err != nil {
			t.Error(err)
		}
	})
}
