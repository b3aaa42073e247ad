package suite

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a person gets wrong is told where a Kubernetes user looks: a condition of the backend, or an event of the claim.

func TestAWrongBackendSaysWhy(t *testing.T) {
	// On the nodes /var/lib/collage is not shared: each sees a folder of its own.
	for _, node := range []string{"node-a", "node-b"} {
		_, err := k8s.NodeExec(ctx, node, "mkdir", "-p", "/var/lib/collage/volumes/private")
		must(t, err)
	}
	_, err := k8s.NodeExec(ctx, "node-a", "sh", "-c", "touch /var/lib/collage/volumes/file")
	must(t, err)
	for _, c := range []struct {
		name, block, condition string
		says                   []string
	}{
		{"missing", "image: {directory: /srv/collage-share/nowhere}", "Reachable", []string{"/srv/collage-share/nowhere"}},
		{"private", "image: {directory: /var/lib/collage/volumes/private}", "Reachable", []string{"/var/lib/collage/volumes/private"}},
		{"file", "local: {directory: /var/lib/collage/volumes/file}", "Reachable", []string{"/var/lib/collage/volumes/file", "node-a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := "wrong-" + c.name
			apply(t, fmt.Sprintf("{apiVersion: collage.storage/v1beta1, kind: StorageBackend, metadata: {name: %s}, spec: {%s, storageClasses: [{name: %s, volumeBindingMode: Immediate}]}}", name, c.block, name))
			t.Cleanup(func() { kubectl(t, "delete", "sb", name, "--timeout=1m") })
			for _, part := range c.says {
				eventually(t, "the condition "+c.condition, func() error { return conditionIs(name, c.condition, "False", part) })
			}
			if c.name == "private" {
				// One node has the marker, the other does not and is named; which one is chance.
				message := kubectl(t, "get", "sb", name, "-o", `jsonpath={.status.conditions[?(@.type=="Reachable")].message}`)
				if strings.Contains(message, "node-a:") == strings.Contains(message, "node-b:") {
					t.Errorf("it should name the one node that lacks the share: %s", message)
				}
			}
		})
	}
}

func TestAClaimThatCannotBeServedSaysWhy(t *testing.T) {
	namespace := space(t)
	apply(t, `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: unknown-parameter}
provisioner: image.collage.storage
parameters: {backend: share, colour: blue}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: unknown-backend}
provisioner: image.collage.storage
parameters: {backend: nowhere}
`)
	t.Cleanup(func() { kubectl(t, "delete", "sc", "unknown-parameter", "unknown-backend") })
	for _, c := range []struct {
		claim claim
		says  []string
	}{
		{claim{name: "parameter", class: "unknown-parameter", size: "1Mi"}, []string{"colour", "unknown-parameter"}},
		{claim{name: "backend", class: "unknown-backend", size: "1Mi"}, []string{"nowhere", "unknown-backend"}},
		{claim{name: "modes", class: "share-now", size: "1Mi", mode: "ReadWriteMany"}, []string{"spec.accessModes", "ReadWriteMany"}},
		{claim{name: "limit", class: "share-now", size: "2Gi"}, []string{"maxVolumeSize", "1Gi"}},
	} {
		t.Run(c.claim.name, func(t *testing.T) {
			t.Parallel()
			apply(t, c.claim.manifest(namespace))
			eventually(t, "the event", func() error { return warned(namespace, c.claim.name, "ProvisioningFailed", c.says...) })
			if phase := kubectl(t, "-n", namespace, "get", "pvc", c.claim.name, "-o", "jsonpath={.status.phase}"); phase != "Pending" {
				t.Errorf("the claim is %s", phase)
			}
		})
	}
}

func TestAClaimOverTheCapacitySaysWhy(t *testing.T) {
	t.Parallel()
	namespace := space(t)
	// Bound at once: the driver refuses. With a pod: the scheduler does, since it knows the capacity.
	apply(t, `{apiVersion: collage.storage/v1beta1, kind: StorageBackend, metadata: {name: roomy}, spec: {image: {directory: /srv/collage-share}, storageClasses: [{name: roomy, volumeBindingMode: Immediate}]}}`)
	t.Cleanup(func() { kubectl(t, "delete", "sb", "roomy", "--timeout=1m") })
	eventually(t, "the backend", func() error { return conditionIs("roomy", "Ready", "True", "") })
	apply(t, claim{name: "now", class: "roomy", size: "90Gi"}.manifest(namespace)+
		claim{name: "later", class: "disk", size: "900Ti"}.manifest(namespace)+
		pod{name: "later", claim: "later", script: "true"}.manifest(namespace))
	eventually(t, "the event of the claim", func() error { return warned(namespace, "now", "ProvisioningFailed", "90") })
	eventually(t, "the event of the pod", func() error { return warned(namespace, "later", "FailedScheduling", "storage") })
	kubectl(t, "-n", namespace, "delete", "pvc", "now", "--timeout=1m")
}

func TestASizeOfZeroOrLessIsRefusedByTheAPIServer(t *testing.T) {
	t.Parallel()
	for _, size := range []string{"0", "-1Gi"} {
		err := k8s.Apply(ctx, claim{name: "none", class: "share-now", size: size}.manifest("default"))
		if err == nil || !strings.Contains(err.Error(), "spec.resources") {
			t.Errorf("%s: %v", size, err)
		}
	}
}

// The same table runs against the engine's own validator in unit/engine.
func TestTheAPIServerRefusesEveryWrongBackend(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "unit/engine/wrong_backends.json"))
	must(t, err)
	var rows []struct {
		Name      string          `json:"name"`
		Before    json.RawMessage `json:"old"`
		Object    json.RawMessage `json:"object"`
		APIServer *string         `json:"api"` // null: only the driver can know, and says so in a condition
	}
	must(t, json.Unmarshal(text, &rows))
	if len(rows) < 20 {
		t.Fatalf("the table has only %d rows", len(rows))
	}
	for _, row := range rows {
		if row.APIServer == nil {
			continue
		}
		t.Run(row.Name, func(t *testing.T) {
			arguments := []string{"kubectl", "create", "--dry-run=server", "--validate=strict", "-f", "-"}
			if len(row.Before) > 0 {
				apply(t, string(row.Before))
				defer k8s.Kubectl(ctx, "delete", "sb", nameOf(t, row.Before), "--timeout=1m")
				arguments = []string{"kubectl", "apply", "--dry-run=server", "--validate=strict", "-f", "-"}
			}
			command, err := k8s.Command(ctx, arguments...)
			must(t, err)
			command.Stdin = bytes.NewReader(row.Object)
			out, err := command.CombinedOutput()
			if err == nil {
				t.Fatalf("it was accepted: %s", out)
			}
			if !strings.Contains(string(out), *row.APIServer) {
				t.Errorf("it says %q, without %q", out, *row.APIServer)
			}
		})
	}
}

func nameOf(t *testing.T, object json.RawMessage) string {
	var named struct{ Metadata struct{ Name string } }
	must(t, json.Unmarshal(object, &named))
	return named.Metadata.Name
}

func TestTheOperatorSaysWhyItCannotReachTheAPIServer(t *testing.T) {
	t.Parallel()
	config, err := os.ReadFile(k8s.Kubeconfig())
	must(t, err)
	foreign := filepath.Join(t.TempDir(), "ca.key")
	other := filepath.Join(t.TempDir(), "ca.crt")
	command, err := k8s.Command(ctx, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=foreign", "-keyout", foreign, "-out", other)
	must(t, err)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, c := range []struct {
		name  string
		alter func(line string) string
		says  string
	}{
		{"another CA", func(line string) string {
			if strings.Contains(line, "certificate-authority") {
				return line[:strings.Index(line, "certificate-authority")] + "certificate-authority: " + other
			}
			return line
		}, "certificate"},
		{"nobody listens", func(line string) string {
			if strings.Contains(line, "server:") {
				return line[:strings.Index(line, "server:")] + "server: https://127.0.0.1:9"
			}
			return line
		}, "127.0.0.1:9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := strings.Split(string(config), "\n")
			for i := range lines {
				lines[i] = c.alter(lines[i])
			}
			path := filepath.Join(t.TempDir(), "kubeconfig")
			must(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600))
			command, err := k8s.Command(ctx, program(), "operator", "--namespace=default", "--listen=127.0.0.1:0", "--kubeconfig="+path)
			must(t, err)
			log, err := os.Create(filepath.Join(t.TempDir(), "operator.log"))
			must(t, err)
			defer log.Close()
			command.Stderr = log
			said := func() string {
				text, err := os.ReadFile(log.Name())
				must(t, err)
				return string(text)
			}
			must(t, command.Start())
			// It waits for an API server that may come; a person reads why.
			missing := k8s.WaitFor(ctx, "the operator to say why", limit, func() error {
				if text := said(); !strings.Contains(text, "API server") || !strings.Contains(text, c.says) {
					return fmt.Errorf("it says nothing of %q: %s", c.says, text)
				}
				return nil
			})
			must(t, command.Process.Signal(os.Interrupt))
			_ = command.Wait()
			must(t, missing)
			noReports(t, said())
		})
	}
}
