package suite

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"collage/e2e/cluster"
)

// What an installation may do, says of itself, and leaves behind. These tests restart all of Collage, so they do not run
// beside others.

func TestHelmTestClaimsAVolumeAndWritesToIt(t *testing.T) {
	command, err := k8s.Command(ctx, "helm", "test", "collage", "--namespace", system, "--timeout", "2m")
	must(t, err)
	out, err := command.CombinedOutput() // the pod's words come on standard error
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, part := range []string{"Succeeded", "leads", "all 2 agents are ready", "StorageBackend share", "read back"} {
		if !strings.Contains(string(out), part) {
			t.Errorf("it does not say %q:\n%s", part, out)
		}
	}
	eventually(t, "the test's claim and its rights to be gone", func() error {
		left, err := k8s.Kubectl(ctx, "-n", system, "get", "pod,pvc,serviceaccount,clusterrole", "-l", "app.kubernetes.io/component=test", "-o", "name")
		if err == nil && left != "" {
			err = fmt.Errorf("left: %s", left)
		}
		return err
	})
}

// The token is the very one that the kubelet wrote for the agent of node-a.
func TestAnAgentsTokenIsGoodForItsOwnNodeOnly(t *testing.T) {
	pod := kubectl(t, "-n", system, "get", "pods", "-l", "app.kubernetes.io/component=node", "--field-selector", "spec.nodeName=node-a,status.phase=Running", "-o", "jsonpath={.items[0].metadata.uid}")
	token, err := k8s.NodeExec(ctx, "node-a", "sh", "-c", "cat "+cluster.KubeletDir+"/pods/"+pod+"/volumes/kubernetes.io~projected/*/token")
	must(t, err)
	authority := kubectl(t, "config", "view", "--raw", "--flatten", "-o", "jsonpath={.clusters[0].cluster}")
	config := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(config, []byte(fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":%s}],
"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{"token":"%s"}}]}`, authority, strings.TrimSpace(token))), 0o600))
	write := func(node string) error {
		manifest := filepath.Join(t.TempDir(), "manifest.yaml")
		must(t, os.WriteFile(manifest, []byte("{apiVersion: collage.storage/v1beta1, kind: StorageNode, metadata: {name: "+node+"}, status: {mounts: {held: 0}}}"), 0o600))
		_, err := k8s.Kubectl(ctx, "--kubeconfig="+config, "apply", "--server-side", "--subresource=status", "--force-conflicts", "--dry-run=server", "--validate=false", "-f", manifest)
		return err
	}
	must(t, write("node-a"))
	if err := write("node-b"); err == nil || !strings.Contains(err.Error(), "the agent of node node-a may not write StorageNode node-b") {
		t.Errorf("node-a's token on node-b's StorageNode: %v", err)
	}
	if _, err := k8s.Kubectl(ctx, "--kubeconfig="+config, "get", "pvc", "-A"); err == nil || !strings.Contains(err.Error(), "cannot list") {
		t.Errorf("node-a's token lists claims: %v", err)
	}
}

// The API server's own record: a cluster of a thousand nodes has two watches for each, of small things.
func TestAnAgentHasTwoWatchesAndReadsNothingElse(t *testing.T) {
	type request struct {
		AuditID, Stage, Verb, RequestURI, UserAgent string
		RequestReceivedTimestamp                    time.Time
		User                                        struct{ Extra map[string][]string }
	}
	// Watches of an API server that was killed never end in its log.
	started := 0.0
	for _, line := range strings.Split(kubectl(t, "get", "--raw", "/metrics"), "\n") {
		if value, found := strings.CutPrefix(line, "process_start_time_seconds "); found {
			var err error
			started, err = strconv.ParseFloat(value, 64)
			must(t, err)
		}
	}
	eventually(t, "each agent to hold its two watches", func() error {
		text, err := os.ReadFile(k8s.AuditLog())
		must(t, err)
		open := map[string]string{} // audit id -> "<node> <what>"
		for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
			var one request
			if err := json.Unmarshal([]byte(line), &one); err != nil {
				continue // the last line may be half written
			}
			if !strings.HasPrefix(one.UserAgent, "collage-node/") || one.Verb == "patch" {
				continue // the operator, a test that borrowed an agent's token, or a status
			}
			names := one.User.Extra["authentication.kubernetes.io/node-name"]
			if len(names) != 1 {
				t.Fatalf("a token without a node: %s", line)
			}
			node := names[0]
			uri, err := url.Parse(one.RequestURI)
			must(t, err)
			resource, _ := strings.CutPrefix(uri.Path, "/apis/collage.storage/v1beta1/")
			selector := uri.Query().Get("fieldSelector")
			if !(uri.Path == "/version" || resource == "storagebackends" || resource == "storagenodes" && selector == "metadata.name="+node) {
				t.Fatalf("the agent of %s asks for %s", node, one.RequestURI)
			}
			if one.Verb != "watch" || float64(one.RequestReceivedTimestamp.UnixNano())/1e9 < started {
				continue
			}
			if one.Stage == "ResponseStarted" {
				open[one.AuditID] = node + " " + resource
			} else {
				delete(open, one.AuditID)
			}
		}
		count := map[string]int{}
		for _, what := range open {
			count[what]++
		}
		for _, node := range cluster.Nodes {
			for _, resource := range []string{"storagebackends", "storagenodes"} {
				if count[node.Name+" "+resource] != 1 {
					return fmt.Errorf("the watches are %v", count)
				}
			}
		}
		if len(open) != 2*len(cluster.Nodes) {
			return fmt.Errorf("the watches are %v", count)
		}
		return nil
	})
}

// kept lists what an uninstallation must not touch.
func kept(t *testing.T) string {
	t.Helper()
	return kubectl(t, "get", "crd,sb,sn,pv,pvc,storageclass,csidriver", "-A", "-o", `jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid}{"\n"}{end}`)
}

func uninstall(t *testing.T, release string) {
	t.Helper()
	_, err := k8s.Helm(ctx, "uninstall", release, "--namespace", system, "--wait", "--timeout", "2m")
	must(t, err)
	kubectl(t, "-n", system, "wait", "--for=delete", "pods", "-l", "app.kubernetes.io/component in (operator, node)", "--timeout=1m")
}

func TestVolumesOutliveUpgradesAndUninstallation(t *testing.T) {
	namespace := space(t)
	// Whatever happens, the tests after this one find Collage installed as before.
	t.Cleanup(func() {
		if t.Failed() {
			_, _ = k8s.Helm(ctx, "uninstall", "storage", "--namespace", system, "--wait")
			must(t, install())
		}
	})
	const beat = "touch /data/beats; (while echo beat >> /data/beats && sync; do sleep 0.1; done; echo stopped) & true"
	apply(t, claim{name: "disk", class: "disk", size: "32Mi"}.manifest(namespace)+
		claim{name: "share", class: "share", size: "32Mi"}.manifest(namespace)+
		claim{name: "moved", class: "share", size: "32Mi"}.manifest(namespace)+
		claim{name: "deleted", class: "share-now", size: "1Mi"}.manifest(namespace)+
		pod{name: "disk", node: "node-a", claim: "disk", script: beat}.manifest(namespace)+
		pod{name: "share", node: "node-a", claim: "share", script: beat}.manifest(namespace)+
		pod{name: "moved", node: "node-a", claim: "moved", script: "dd if=/dev/urandom of=/data/payload bs=1M count=8 2>/dev/null; sync; sha256sum /data/payload"}.manifest(namespace)+
		"\n---\n{apiVersion: collage.storage/v1beta1, kind: StorageBackend, metadata: {name: short}, spec: {image: {directory: /srv/collage-share}}}\n")
	ready(t, namespace, "disk")
	ready(t, namespace, "share")
	payload := ready(t, namespace, "moved")
	eventually(t, "the claim without a pod to be Bound", func() error {
		phase, err := k8s.Kubectl(ctx, "-n", namespace, "get", "pvc", "deleted", "-o", "jsonpath={.status.phase}")
		if err == nil && phase != "Bound" {
			err = fmt.Errorf("it is %s", phase)
		}
		return err
	})
	eventually(t, "the short-lived backend", func() error { return conditionIs("short", "Ready", "True", "") })
	deleted := volumeOf(t, namespace, "deleted")
	goOn := func(after string) {
		t.Helper()
		for _, name := range []string{"disk", "share"} {
			beats := func() string {
				return kubectl(t, "-n", namespace, "exec", name, "--", "sh", "-c", "wc -l < /data/beats")
			}
			before := beats()
			eventually(t, "pod "+name+" to go on writing after "+after, func() error {
				if beats() == before {
					return fmt.Errorf("still %s beats", before)
				}
				return nil
			})
			if out := kubectl(t, "-n", namespace, "logs", name); strings.Contains(out, "stopped") {
				t.Fatalf("pod %s noticed %s: %q", name, after, out)
			}
		}
	}

	// An upgrade restarts every operator and agent below running pods.
	_, err := k8s.Helm(ctx, "upgrade", "collage", filepath.Join(root, "helm/collage"), "--namespace", system, "--reuse-values",
		"--set-string", "controller.podAnnotations.restart=1,node.podAnnotations.restart=1", "--wait", "--timeout", "3m")
	must(t, err)
	goOn("an upgrade")

	before := kept(t)
	uninstall(t, "collage")
	if after := kept(t); after != before {
		t.Errorf("there was\n%s\nafter uninstalling there is\n%s", before, after)
	}
	goOn("an uninstallation")
	doctor := make(chan string, 1)
	go func() {
		command, err := k8s.Command(ctx, program(), "doctor", "--namespace="+system, "--kubeconfig="+k8s.Kubeconfig())
		if err != nil {
			doctor <- err.Error()
			return
		}
		out, _ := command.CombinedOutput()
		doctor <- string(out)
	}()
	// What is asked for meanwhile waits.
	kubectl(t, "-n", namespace, "delete", "pvc", "deleted", "--wait=false")
	kubectl(t, "-n", namespace, "delete", "pod", "moved", "--wait=false")
	kubectl(t, "delete", "sb", "short", "--wait=false")
	eventually(t, "the volume to be Released", func() error {
		phase, err := k8s.Kubectl(ctx, "get", "pv", deleted, "-o", "jsonpath={.status.phase}")
		if err == nil && phase != "Released" {
			err = fmt.Errorf("it is %s", phase)
		}
		return err
	})
	said := <-doctor
	noReports(t, said)
	if !strings.Contains(said, "FAIL  Lease") || !strings.Contains(said, "no operator leads") || !strings.Contains(said, "there is no DaemonSet of Collage") {
		t.Errorf("the doctor says of an uninstalled Collage:\n%s", said)
	}

	// Another name for the release makes other names of everything in it, and no difference to volumes.
	must(t, installAs("storage"))
	goOn("a new installation")
	kubectl(t, "-n", namespace, "wait", "--for=delete", "pod/moved", "--timeout=1m")
	apply(t, pod{name: "again", node: "node-b", claim: "moved", script: "sha256sum /data/payload"}.manifest(namespace))
	if got := ready(t, namespace, "again"); got != payload {
		t.Errorf("wrote %q before, read %q after", payload, got)
	}
	kubectl(t, "wait", "--for=delete", "sb/short", "pv/"+deleted, "--timeout=1m")
	if names := onStorage(t, "node-a", cluster.ShareDir); contains(names, deleted) {
		t.Errorf("the share still holds %s: %q", deleted, names)
	}

	uninstall(t, "storage")
	must(t, install())
	goOn("the way back")
	for _, name := range []string{"disk", "share"} {
		eventually(t, "StorageBackend "+name, func() error { return conditionIs(name, "Ready", "True", "") })
	}
}
