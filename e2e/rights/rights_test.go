// Package rights tries on a real API server what the chart's roles and admission policies allow and refuse, what the
// chart leaves behind, and that the API server of the unit tests answers as this one does.
package rights

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"collage/e2e/cluster"
)

const namespace = "collage-system"

const operator = "--as=system:serviceaccount:" + namespace + ":collage-operator"

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

// try is something that somebody tries to do.
type try struct {
	name      string
	arguments []string // of kubectl
	manifest  string   // given as a file, if there is one
	refusal   string   // "": it is allowed; else part of what the API server says
}

func run(t *testing.T, c *cluster.Cluster, who []string, tries []try) {
	t.Helper()
	for _, each := range tries {
		t.Run(each.name, func(t *testing.T) {
			arguments := append(slices.Clone(who), each.arguments...)
			if each.manifest != "" {
				file := filepath.Join(t.TempDir(), "manifest.yaml")
				if err := os.WriteFile(file, []byte(each.manifest), 0o600); err != nil {
					t.Fatal(err)
				}
				arguments = append(arguments, "--validate=false", "--filename", file)
			}
			_, err := c.Kubectl(context.Background(), arguments...)
			if each.refusal == "" && err != nil {
				t.Error(err)
			}
			if each.refusal != "" && (err == nil || !strings.Contains(err.Error(), each.refusal)) {
				t.Errorf("want a refusal with %q, got %v", each.refusal, err)
			}
		})
	}
}

func patch(kind, name, change string, more ...string) []string {
	return append([]string{"patch", kind, name, "--type=merge", "-p", change}, more...)
}

func TestRights(t *testing.T) {
	c := boot(t)
	ctx := context.Background()
	must := func(arguments ...string) string {
		t.Helper()
		out, err := c.Kubectl(ctx, arguments...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	root, err := cluster.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	chart := filepath.Join(root, "helm/collage")
	upgrade := func(t *testing.T, values string) {
		t.Helper()
		if _, err := c.Helm(ctx, "upgrade", "collage", chart, "--namespace", namespace, "--reset-then-reuse-values", "--set", values); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range cluster.Nodes {
		if err := c.Apply(ctx, "apiVersion: collage.storage/v1beta1\nkind: StorageNode\nmetadata: {name: "+node.Name+"}\nspec: {}\n"); err != nil {
			t.Fatal(err)
		}
	}
	for _, where := range []string{namespace, "team-a", "default"} {
		must("create", "secret", "generic", "storage", "--namespace", where)
	}
	waitForPolicies(t, c)

	t.Run("contract", func(t *testing.T) { testContract(t, c) })
	t.Run("agent", func(t *testing.T) { testAgent(t, c) })
	t.Run("operator", func(t *testing.T) { testOperator(t, c) })

	t.Run("deleting pods is allowed by a value", func(t *testing.T) {
		for name, volume := range map[string]string{"with-claim": "persistentVolumeClaim: {claimName: x}", "without": "emptyDir: {}"} {
			if err := c.Apply(ctx, fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {nodeSelector: {no: where}, containers: [{name: c, image: x}], volumes: [{name: v, %s}]}}", name, volume)); err != nil {
				t.Fatal(err)
			}
		}
		run(t, c, []string{operator}, []try{{name: "not by default", arguments: []string{"delete", "--raw", "/api/v1/namespaces/default/pods/with-claim"}, refusal: "cannot delete resource \"pods\""}})
		upgrade(t, "rbac.deletePods=true")
		err := c.WaitFor(ctx, "the policy for pods to be in force", time.Minute, func() error {
			_, err := c.Kubectl(ctx, operator, "delete", "--raw", "/api/v1/namespaces/default/pods/without?dryRun=All")
			if err == nil || !strings.Contains(err.Error(), "the operator of Collage may") {
				return fmt.Errorf("a pod without a claim: %v", err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		run(t, c, []string{operator}, []try{
			{name: "a pod without a claim", arguments: []string{"delete", "--raw", "/api/v1/namespaces/default/pods/without"}, refusal: "may delete pods that use a PersistentVolumeClaim only"},
			{name: "it looks at a pod first", arguments: []string{"get", "pod", "with-claim"}},
			{name: "a pod with a claim", arguments: []string{"delete", "--raw", "/api/v1/namespaces/default/pods/with-claim"}},
			{name: "pods are still not listed", arguments: []string{"get", "pods"}, refusal: "cannot list"},
		})
	})

	t.Run("Secrets can be limited to names", func(t *testing.T) {
		upgrade(t, "rbac.secretNames={fast-admin}")
		must("create", "secret", "generic", "fast-admin", "--namespace", namespace)
		watch := "/api/v1/namespaces/" + namespace + "/secrets?watch=true&timeoutSeconds=1"
		run(t, c, []string{operator}, []try{
			{name: "a listed one", arguments: []string{"get", "secret", "fast-admin", "--namespace", namespace}},
			{name: "another", arguments: []string{"get", "secret", "storage", "--namespace", namespace}, refusal: "cannot get resource \"secrets\""},
			{name: "watching a listed one", arguments: []string{"get", "--raw", watch + "&fieldSelector=metadata.name%3Dfast-admin"}},
			{name: "watching another", arguments: []string{"get", "--raw", watch + "&fieldSelector=metadata.name%3Dstorage"}, refusal: "cannot watch resource \"secrets\""},
			{name: "watching all", arguments: []string{"get", "--raw", watch}, refusal: "cannot watch resource \"secrets\""},
			{name: "one of that name elsewhere", arguments: []string{"get", "secret", "fast-admin", "--namespace", "default"}, refusal: "cannot get resource \"secrets\""},
		})
	})

	// Where only the operator runs, and the Secrets are, the strictest standard can be enforced.
	t.Run("the operator is restricted, the agent is not", func(t *testing.T) {
		must("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
		defer must("label", "namespace", namespace, "pod-security.kubernetes.io/enforce-")
		create := func(kind, name string) error {
			var workload struct {
				Spec struct {
					Template struct {
						Spec json.RawMessage `json:"spec"`
					} `json:"template"`
				} `json:"spec"`
			}
			if err := c.Get(ctx, &workload, kind, name, "--namespace", namespace); err != nil {
				t.Fatal(err)
			}
			return c.Apply(ctx, fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"restricted-%s","namespace":"%s"},"spec":%s}`, kind, namespace, workload.Spec.Template.Spec))
		}
		if err := create("deployment", "collage-operator"); err != nil {
			t.Error(err)
		}
		if err := create("daemonset", "collage-node"); err == nil || !strings.Contains(err.Error(), "violates PodSecurity") || !strings.Contains(err.Error(), "privileged") {
			t.Errorf("the agent under restricted: %v", err)
		}
		pod, err := c.Helm(ctx, "template", "collage", chart, "--namespace", namespace, "--set", "image.repository=localhost/none,test.storageClass=x",
			"--show-only", "templates/tests/doctor.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(ctx, pod); err != nil {
			t.Errorf("the test's pod under restricted: %v", err)
		}
		must("delete", "--namespace", namespace, "--wait=false", "--ignore-not-found", "pod/restricted-deployment", "pod/collage-test", "serviceaccount/collage-test")
		must("delete", "--wait=false", "clusterrole/collage-test", "clusterrolebinding/collage-test")
	})

	t.Run("a second release is refused", func(t *testing.T) {
		for _, release := range [][]string{{"other", namespace}, {"collage", "team-a"}} {
			_, err := c.Helm(ctx, "install", release[0], chart, "--namespace", release[1], "--set", "image.repository=localhost/none,fullnameOverride=second")
			if err == nil || !strings.Contains(err.Error(), "installed in this cluster already, as release collage in namespace "+namespace) || !strings.Contains(err.Error(), "helm uninstall collage -n "+namespace) {
				t.Errorf("%v: %v", release, err)
			}
		}
	})

	t.Run("the examples are accepted", func(t *testing.T) {
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
		must("apply", "--filename", filepath.Join(root, "crds"))
		must("apply", "--kustomize", filepath.Join(root, "manifests"))
		image, err := c.Kubectl(ctx, "get", "daemonset", "collage-node", "--namespace", namespace, "-o", "jsonpath={.spec.template.spec.containers[0].image}")
		if err != nil || image != "registry.example.com/collage-node:0.1.0" {
			t.Errorf("got %q, %v", image, err)
		}
		if _, err := c.Helm(ctx, "install", "collage", chart, "--namespace", "team-a", "--set", "image.repository=localhost/none,fullnameOverride=second"); err == nil || !strings.Contains(err.Error(), "installed in this cluster already, without Helm") {
			t.Errorf("beside the manifests: %v", err)
		}
		must("delete", "--filename", filepath.Join(root, "manifests/install.yaml"), "--wait=false")
		must("get", "secret", "storage", "--namespace", namespace)
		if _, err := c.Kubectl(ctx, "get", "storagebackend", "disk"); err != nil {
			t.Errorf("deleting the manifests deleted the backends: %v", err)
		}
	})
}
