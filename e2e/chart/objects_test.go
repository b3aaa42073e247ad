package chart

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestTheOperatorHasNoRightsOnItsHost(t *testing.T) {
	pod := at(rendered(t)["Deployment/collage-operator"], "spec", "template", "spec")
	container := at(pod, "containers", 0)
	wants := []struct {
		of   any
		path []any
		want any
	}{
		{pod, []any{"securityContext", "runAsNonRoot"}, true},
		{pod, []any{"securityContext", "runAsUser"}, 65532.0},
		{pod, []any{"securityContext", "seccompProfile", "type"}, "RuntimeDefault"},
		{pod, []any{"volumes"}, nil},
		{pod, []any{"hostNetwork"}, nil},
		{pod, []any{"hostPID"}, nil},
		{pod, []any{"hostIPC"}, nil},
		{pod, []any{"priorityClassName"}, "system-cluster-critical"},
		{pod, []any{"terminationGracePeriodSeconds"}, 30.0},
		{container, []any{"securityContext", "readOnlyRootFilesystem"}, true},
		{container, []any{"securityContext", "allowPrivilegeEscalation"}, false},
		{container, []any{"securityContext", "privileged"}, nil},
		{container, []any{"securityContext", "capabilities", "drop", 0}, "ALL"},
		{container, []any{"securityContext", "capabilities", "add"}, nil},
		{container, []any{"image"}, "registry.example.com/collage:0.1.0"},
		{container, []any{"volumeMounts"}, nil},
	}
	for _, w := range wants {
		if got := at(w.of, w.path...); !reflect.DeepEqual(got, w.want) {
			t.Errorf("%v is %v, want %v", w.path, got, w.want)
		}
	}
	if count := len(list(pod, "containers")) + len(list(pod, "initContainers")); count != 1 {
		t.Errorf("%d containers, want 1", count)
	}
}

func TestTheAgentSeesWhatItMustAndNoMore(t *testing.T) {
	pod := at(rendered(t, "--set", "node.directories={/var/lib/collage/volumes,/srv/share}")["DaemonSet/collage-node"], "spec", "template", "spec")
	container := at(pod, "containers", 0)
	for _, field := range []string{"hostNetwork", "hostPID", "hostIPC"} {
		if at(pod, field) != nil {
			t.Errorf("%s is set", field)
		}
	}
	if at(container, "securityContext", "privileged") != true || at(container, "securityContext", "readOnlyRootFilesystem") != true {
		t.Errorf("securityContext is %v", at(container, "securityContext"))
	}
	if got := at(container, "image"); got != "registry.example.com/collage-node:0.1.0" {
		t.Errorf("image is %v", got)
	}
	if got := stringsOf(pod, "tolerations"); len(got) != 1 || got[0] != "map[operator:Exists]" {
		t.Errorf("tolerations are %v", got)
	}

	// Of every path the one that the agent sees is the host's own: the kubelet names paths of the host.
	hostPaths := map[string]string{}
	for _, volume := range list(pod, "volumes") {
		if path, ok := at(volume, "hostPath", "path").(string); ok {
			hostPaths[at(volume, "name").(string)] = path
		}
	}
	got := map[string]any{}
	for _, mount := range list(container, "volumeMounts") {
		path := at(mount, "mountPath").(string)
		if host, ok := hostPaths[at(mount, "name").(string)]; ok {
			if host != path {
				t.Errorf("the host's %s is mounted at %s", host, path)
			}
			got[path] = at(mount, "mountPropagation")
		}
	}
	want := map[string]any{
		"/dev":                              nil,
		"/srv/share":                        "HostToContainer",
		"/var/lib/collage/node":             nil,
		"/var/lib/collage/volumes":          "HostToContainer",
		"/var/lib/kubelet/plugins":          "Bidirectional",
		"/var/lib/kubelet/plugins_registry": nil,
		"/var/lib/kubelet/pods":             "Bidirectional",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("host paths are\n%v, want\n%v", got, want)
	}
}

func TestBothPodsHaveProbesOnTheirPort(t *testing.T) {
	objects := rendered(t, "--set", "controller.port=9000,node.port=9001")
	for name, port := range map[string]int{"Deployment/collage-operator": 9000, "DaemonSet/collage-node": 9001} {
		container := at(objects[name], "spec", "template", "spec", "containers", 0)
		if got := at(container, "ports", 0, "containerPort"); got != float64(port) {
			t.Errorf("%s: port %v", name, got)
		}
		if !slices.Contains(stringsOf(container, "args"), fmt.Sprintf("--listen=:%d", port)) {
			t.Errorf("%s: args %v", name, stringsOf(container, "args"))
		}
		for probe, path := range map[string]string{"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"} {
			if got := at(container, probe, "httpGet", "path"); got != path {
				t.Errorf("%s: %s asks %v, want %s", name, probe, got, path)
			}
		}
	}
}

func TestValuesReachThePods(t *testing.T) {
	objects := rendered(t, "--set", "kubeletPath=/data/kubelet,clusterID=blue,log.level=debug,log.format=text,node.hostNetwork=true",
		"--set", "node.stateDirectory=/data/collage,node.directoryPropagation=None,image.tag=v9,image.nodeRepository=other/agent",
		"--set", "imagePullSecrets[0].name=pull,customLabels.team=storage,controller.affinity.nodeAffinity.x=y")
	operator := at(objects["Deployment/collage-operator"], "spec", "template", "spec")
	node := at(objects["DaemonSet/collage-node"], "spec", "template", "spec")

	wantArguments := []string{"--namespace=$(POD_NAMESPACE)", "--pod-name=$(POD_NAME)", "--listen=:8080", "--log-format=text", "--log-level=debug", "--cluster-id=blue"}
	if got := stringsOf(operator, "containers", 0, "args"); !slices.Equal(got, wantArguments) {
		t.Errorf("operator args are %v", got)
	}
	wantArguments = []string{"--node-name=$(NODE_NAME)", "--kubelet-directory=/data/kubelet", "--state-directory=/data/collage",
		"--mount-helper=/usr/bin/collage-mount", "--listen=:8081", "--log-format=text", "--log-level=debug"}
	if got := stringsOf(node, "containers", 0, "args"); !slices.Equal(got, wantArguments) {
		t.Errorf("node args are %v", got)
	}
	if strings.Contains(fmt.Sprint(node), "/var/lib/kubelet") {
		t.Error("the default kubelet path is still there")
	}
	for got, want := range map[any]any{
		at(operator, "containers", 0, "image"):                                   "registry.example.com/collage:v9",
		at(node, "containers", 0, "image"):                                       "other/agent:v9",
		at(node, "dnsPolicy"):                                                    "ClusterFirstWithHostNet",
		at(node, "imagePullSecrets", 0, "name"):                                  "pull",
		at(operator, "affinity", "nodeAffinity", "x"):                            "y",
		at(objects["ServiceAccount/collage-node"], "metadata", "labels", "team"): "storage",
	} {
		if got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// Every right, no more and no fewer. A change here is a change of what a stolen token can do.
func TestRightsAreExactlyThese(t *testing.T) {
	objects := rendered(t, "--set", "rbac.secretNamespaces={team-a,collage-system}")
	want := map[string][]string{
		"ClusterRole/collage-operator": {
			"collage.storage/storagebackends: get list patch watch",
			"collage.storage/storagebackends/status: patch",
			"collage.storage/storagenodes: create delete get list patch watch",
			"core/events: create patch",
			"core/namespaces: get list watch",
			"core/nodes: get list patch watch",
			"core/persistentvolumeclaims: get list patch watch",
			"core/persistentvolumes: create delete get list patch watch",
			"storage.k8s.io/csidrivers: create get list patch watch",
			"storage.k8s.io/csinodes: get list watch",
			"storage.k8s.io/storageclasses: create delete get list patch watch",
			"storage.k8s.io/volumeattachments: get list patch update watch",
			"storage.k8s.io/volumeattachments/status: patch update",
		},
		"Role/collage-operator": {
			"coordination.k8s.io/leases: create",
			"coordination.k8s.io/leases/collage-operator: get update watch",
			"core/configmaps: create delete get update",
			"core/secrets: get",
			"storage.k8s.io/csistoragecapacities: create delete get list patch watch",
		},
		"Role/team-a/collage-operator-secrets": {"core/secrets: get"},
		"ClusterRole/collage-node": {
			"collage.storage/storagebackends: list watch",
			"collage.storage/storagenodes: list watch",
			"collage.storage/storagenodes/status: patch",
		},
	}
	got := map[string][]string{}
	for name, one := range objects {
		if one["kind"] == "Role" || one["kind"] == "ClusterRole" {
			got[name] = rights(one)
		}
	}
	// What values add, and no more.
	for set, more := range map[string][2]string{
		"rbac.deletePods=true":           {"ClusterRole/collage-operator", "core/pods: delete get"},
		"rbac.secretNames={fast,slow.a}": {"Role/collage-operator", "core/secrets/fast/slow.a: get watch"},
	} {
		var plain []string
		for _, right := range want[more[0]] {
			if !strings.HasPrefix(more[1], "core/secrets") || !strings.HasPrefix(right, "core/secrets") {
				plain = append(plain, right)
			}
		}
		plain = append(plain, more[1])
		slices.Sort(plain)
		with := rights(rendered(t, "--set", set)[more[0]])
		slices.Sort(with)
		if !slices.Equal(with, plain) {
			t.Errorf("--set %s: %s:\n  %s\nwant\n  %s", set, more[0], strings.Join(with, "\n  "), strings.Join(plain, "\n  "))
		}
	}
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("%s:\n  %s\nwant\n  %s", name, strings.Join(got[name], "\n  "), strings.Join(want[name], "\n  "))
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s is not expected", name)
	}

	// Each role is bound to the ServiceAccount of its name and to nothing else.
	for name, one := range objects {
		kind, _ := one["kind"].(string)
		if !strings.HasSuffix(kind, "RoleBinding") {
			continue
		}
		role := at(one, "metadata", "name").(string)
		account := strings.TrimSuffix(role, "-secrets")
		subject := at(one, "subjects", 0)
		if len(list(one, "subjects")) != 1 || at(subject, "name") != account || at(subject, "namespace") != "collage-system" ||
			at(one, "roleRef", "name") != role || at(one, "roleRef", "kind") != strings.TrimSuffix(kind, "Binding") {
			t.Errorf("%s binds %v to %v", name, at(one, "roleRef"), at(one, "subjects"))
		}
	}
}

// rights are a role's rules as "group/resource: verb verb", with the name where a rule is for one object only.
func rights(role object) []string {
	verbs := map[string][]string{}
	for _, rule := range list(role, "rules") {
		for _, group := range stringsOf(rule, "apiGroups") {
			if group == "" {
				group = "core"
			}
			for _, resource := range stringsOf(rule, "resources") {
				key := group + "/" + resource
				for _, name := range stringsOf(rule, "resourceNames") {
					key += "/" + name
				}
				verbs[key] = append(verbs[key], stringsOf(rule, "verbs")...)
			}
		}
	}
	var result []string
	for _, key := range slices.Sorted(maps.Keys(verbs)) {
		slices.Sort(verbs[key])
		result = append(result, key+": "+strings.Join(verbs[key], " "))
	}
	return result
}

// What the policies say is tried on a real API server; here: that they are for the right account, and in force.
func TestPoliciesNarrowWhatRBACCannot(t *testing.T) {
	objects := rendered(t, "--set", "rbac.deletePods=true")
	count := 0
	for name := range objects {
		name, found := strings.CutPrefix(name, "ValidatingAdmissionPolicy/")
		if !found {
			continue
		}
		count++
		account := "collage-operator"
		if strings.HasPrefix(name, "collage-node-") {
			account = "collage-node"
		}
		policy := objects["ValidatingAdmissionPolicy/"+name]
		if got := at(policy, "spec", "matchConditions", 0, "expression"); got != "request.userInfo.username == 'system:serviceaccount:collage-system:"+account+"'" {
			t.Errorf("%s is for %v", name, got)
		}
		if got := at(policy, "spec", "failurePolicy"); got != "Fail" {
			t.Errorf("%s: failurePolicy is %v", name, got)
		}
		if len(list(policy, "spec", "validations")) == 0 || at(policy, "spec", "matchConstraints", "resourceRules", 0, "apiVersions", 0) != "*" {
			t.Errorf("%s refuses nothing: %v", name, at(policy, "spec"))
		}
		binding := objects["ValidatingAdmissionPolicyBinding/"+name]
		if at(binding, "spec", "policyName") != name || !slices.Equal(stringsOf(binding, "spec", "validationActions"), []string{"Deny"}) {
			t.Errorf("%s is bound by %v", name, at(binding, "spec"))
		}
	}
	if count != 10 {
		t.Errorf("%d policies, want 10", count)
	}
	// Every kind of object that the operator may write by RBAC, and that others have too, has a policy. The rest is Collage's own.
	own := map[string]bool{"storagenodes": true, "csistoragecapacities": true, "events": true}
	limited := map[string]bool{}
	for name, one := range objects {
		if strings.HasPrefix(name, "ValidatingAdmissionPolicy/collage-operator-") {
			for _, rule := range list(one, "spec", "matchConstraints", "resourceRules") {
				for _, resource := range stringsOf(rule, "resources") {
					limited[resource] = true
				}
			}
		}
	}
	for _, role := range []string{"ClusterRole/collage-operator", "Role/collage-operator"} {
		for _, right := range rights(objects[role]) {
			what, verbs, _ := strings.Cut(right, ": ")
			resource := strings.Split(what, "/")[1]
			if strings.Trim(strings.NewReplacer("get", "", "list", "", "watch", "").Replace(verbs), " ") != "" && !own[resource] && !limited[resource] {
				t.Errorf("no policy narrows %s", right)
			}
		}
	}
	for name := range rendered(t, "--set", "admissionPolicy.enabled=false") {
		if strings.HasPrefix(name, "ValidatingAdmissionPolicy") {
			t.Errorf("admissionPolicy.enabled=false leaves %s", name)
		}
	}
}

// Agents in a namespace of their own: everything of theirs is there, and nothing of the operator's.
func TestAgentsCanHaveANamespaceOfTheirOwn(t *testing.T) {
	objects := rendered(t, "--set", "node.namespace=collage-agents,metrics.serviceMonitor.enabled=true")
	for _, name := range []string{"DaemonSet/collage-agents/collage-node", "ServiceAccount/collage-agents/collage-node",
		"NetworkPolicy/collage-agents/collage-node", "Service/collage-agents/collage-node-metrics", "ServiceMonitor/collage-agents/collage-node-metrics",
		"Deployment/collage-operator", "ServiceAccount/collage-operator", "Role/collage-operator", "NetworkPolicy/collage-operator", "Service/collage-operator-metrics"} {
		if objects[name] == nil {
			t.Errorf("no %s", name)
		}
	}
	if got := at(objects["ClusterRoleBinding/collage-node"], "subjects", 0, "namespace"); got != "collage-agents" {
		t.Errorf("the role is bound in %v", got)
	}
	if got := at(objects["ValidatingAdmissionPolicy/collage-node-own-storagenode"], "spec", "matchConditions", 0, "expression"); got != "request.userInfo.username == 'system:serviceaccount:collage-agents:collage-node'" {
		t.Errorf("the policy is for %v", got)
	}
}

func TestOnlyMetricsCanBeReached(t *testing.T) {
	objects := rendered(t)
	for _, component := range []string{"operator", "node"} {
		policy := objects["NetworkPolicy/collage-"+component]
		if got := fmt.Sprint(at(policy, "spec", "policyTypes")); got != "[Ingress]" {
			t.Errorf("%s: policy types %s", component, got)
		}
		if got := fmt.Sprint(at(policy, "spec", "ingress")); got != "[map[ports:[map[port:http protocol:TCP]]]]" {
			t.Errorf("%s: ingress %s", component, got)
		}
		if got := at(policy, "spec", "podSelector", "matchLabels", "app.kubernetes.io/component"); got != component {
			t.Errorf("%s: selects %v", component, got)
		}
	}
	objects = rendered(t, "--set", "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b",
		"--set", "networkPolicy.operatorEgress[0].to[0].ipBlock.cidr=10.0.0.1/32,networkPolicy.operatorEgress[0].ports[0].port=6443")
	operator := objects["NetworkPolicy/collage-operator"]
	if got := fmt.Sprint(at(operator, "spec", "policyTypes")); got != "[Ingress Egress]" {
		t.Errorf("policy types %s", got)
	}
	if got := fmt.Sprint(at(operator, "spec", "egress")); got != "[map[ports:[map[port:6443]] to:[map[ipBlock:map[cidr:10.0.0.1/32]]]]]" {
		t.Errorf("egress %s", got)
	}
	if got := fmt.Sprint(at(operator, "spec", "ingress", 0, "from")); got != "[map[namespaceSelector:map[matchLabels:map[a:b]]]]" {
		t.Errorf("ingress from %s", got)
	}
	if got := fmt.Sprint(at(objects["NetworkPolicy/collage-node"], "spec", "policyTypes")); got != "[Ingress]" {
		t.Errorf("the agents' policy types %s", got)
	}
}

func TestReplicasSpread(t *testing.T) {
	constraints := list(rendered(t)["Deployment/collage-operator"], "spec", "template", "spec", "topologySpreadConstraints")
	if len(constraints) != 2 {
		t.Fatalf("%v", constraints)
	}
	for index, key := range []string{"kubernetes.io/hostname", "topology.kubernetes.io/zone"} {
		if at(constraints[index], "topologyKey") != key || at(constraints[index], "whenUnsatisfiable") != "ScheduleAnyway" ||
			at(constraints[index], "labelSelector", "matchLabels", "app.kubernetes.io/component") != "operator" ||
			!slices.Equal(stringsOf(constraints[index], "matchLabelKeys"), []string{"pod-template-hash"}) {
			t.Errorf("%v", constraints[index])
		}
	}
}

// A token is in the pods that speak to the API server and in no other pod that names their account.
func TestTokensAreOnlyWhereTheyAreAskedFor(t *testing.T) {
	for name, one := range rendered(t) {
		switch one["kind"] {
		case "ServiceAccount":
			if at(one, "automountServiceAccountToken") != false {
				t.Errorf("%s mounts its token everywhere", name)
			}
		case "Deployment", "DaemonSet":
			pod := at(one, "spec", "template", "spec")
			if at(pod, "automountServiceAccountToken") != true || at(pod, "enableServiceLinks") != false {
				t.Errorf("%s: token %v, service links %v", name, at(pod, "automountServiceAccountToken"), at(pod, "enableServiceLinks"))
			}
		}
	}
}

// `helm test` runs our own image, as restricted as the operator, with rights that go with the test.
func TestTheTestNeedsNoOtherImage(t *testing.T) {
	stream, err := template(t, append(repository, "--set", "test.storageClass=fast", "--show-only", "templates/tests/doctor.yaml")...)
	if err != nil {
		t.Fatal(err)
	}
	objects := byName(t, decode(t, split(stream)...))
	for name, one := range objects {
		if at(one, "metadata", "annotations", "helm.sh/hook") != "test" {
			t.Errorf("%s is no part of the test only", name)
		}
		policy := fmt.Sprint(at(one, "metadata", "annotations", "helm.sh/hook-delete-policy"))
		want := "before-hook-creation,hook-succeeded,hook-failed"
		if name == "Pod/collage-test" {
			want = "before-hook-creation,hook-succeeded" // after a failure a person reads what it said
		}
		if policy != want {
			t.Errorf("%s: delete policy %s", name, policy)
		}
	}
	if got := at(objects["Pod/collage-test"], "metadata", "annotations", "helm.sh/hook-output-log-policy"); got != "hook-succeeded,hook-failed" {
		t.Errorf("what it says is shown on %v", got)
	}
	pod := at(objects["Pod/collage-test"], "spec")
	operator := at(rendered(t)["Deployment/collage-operator"], "spec", "template", "spec")
	for _, path := range [][]any{{"containers", 0, "image"}, {"containers", 0, "securityContext"}, {"securityContext"}, {"tolerations"}} {
		if got, want := at(pod, path...), at(operator, path...); !reflect.DeepEqual(got, want) {
			t.Errorf("%v is %v, the operator's %v", path, got, want)
		}
	}
	if got := at(pod, "volumes", 0, "ephemeral", "volumeClaimTemplate", "spec", "storageClassName"); got != "fast" {
		t.Errorf("the class is %v", got)
	}
	want := []string{"apps/daemonsets: list", "collage.storage/storagebackends: list", "collage.storage/storagenodes: list", "coordination.k8s.io/leases/collage-operator: get"}
	if got := rights(objects["ClusterRole/collage-test"]); !slices.Equal(got, want) {
		t.Errorf("rights are %v", got)
	}
}

func TestOptionalObjectsComeAndGo(t *testing.T) {
	cases := []struct {
		set, object string
		want        bool
	}{
		{"controller.replicaCount=2", "PodDisruptionBudget/collage-operator", true},
		{"controller.replicaCount=1", "PodDisruptionBudget/collage-operator", false},
		{"controller.podDisruptionBudget.enabled=false", "PodDisruptionBudget/collage-operator", false},
		{"metrics.serviceMonitor.enabled=false", "ServiceMonitor/collage-operator-metrics", false},
		{"metrics.serviceMonitor.enabled=true", "ServiceMonitor/collage-operator-metrics", true},
		{"metrics.serviceMonitor.enabled=true", "ServiceMonitor/collage-node-metrics", true},
		{"metrics.serviceMonitor.enabled=true", "Service/collage-node-metrics", true},
		{"networkPolicy.enabled=false", "NetworkPolicy/collage-operator", false},
		{"networkPolicy.enabled=false", "NetworkPolicy/collage-node", false},
		{"test.storageClass=fast", "Pod/collage-test", false}, // with `helm test` only
		{"rbac.deletePods=true", "ValidatingAdmissionPolicy/collage-operator-pods-with-volumes", true},
		{"rbac.deletePods=false", "ValidatingAdmissionPolicy/collage-operator-pods-with-volumes", false},
		{"rbac.secretNamespaces={team-b}", "RoleBinding/team-b/collage-operator-secrets", true},
		{"fullnameOverride=other", "DaemonSet/other-node", true},
	}
	for _, c := range cases {
		if got := rendered(t, "--set", c.set)[c.object] != nil; got != c.want {
			t.Errorf("--set %s: %s there: %v, want %v", c.set, c.object, got, c.want)
		}
	}
}

// Every object and pod carries the recommended labels, and selectors choose the pods of their own component.
func TestLabels(t *testing.T) {
	for name, one := range rendered(t, "--set", "metrics.serviceMonitor.enabled=true") {
		for _, label := range []string{"name", "instance", "component", "part-of", "version", "managed-by"} {
			if at(one, "metadata", "labels", "app.kubernetes.io/"+label) == nil {
				t.Errorf("%s has no label %s", name, label)
			}
		}
		if one["kind"] != "Deployment" && one["kind"] != "DaemonSet" {
			continue
		}
		pod := at(one, "spec", "template", "metadata", "labels")
		selector, _ := at(one, "spec", "selector", "matchLabels").(map[string]any)
		if len(selector) != 3 {
			t.Errorf("%s selects by %v", name, selector)
		}
		for key, value := range selector {
			if at(pod, key) != value {
				t.Errorf("%s selects %s=%v, its pods have %v", name, key, value, at(pod, key))
			}
		}
		// A label with the version would restart every agent at every upgrade of the chart.
		if at(pod, "helm.sh/chart") != nil || at(pod, "app.kubernetes.io/version") != nil {
			t.Errorf("%s: pods carry the version: %v", name, pod)
		}
	}
}

func TestNotesSayWhatToDoNext(t *testing.T) {
	chart := t.TempDir()
	if err := os.CopyFS(chart, os.DirFS(filepath.Join(root, "helm/collage"))); err != nil {
		t.Fatal(err)
	}
	// NOTES.txt is shown only by an installation; as the text of an object it can be rendered without one.
	notes := filepath.Join(chart, "templates/NOTES.txt")
	write(t, filepath.Join(chart, "NOTES.txt"), read(t, notes))
	if err := os.Remove(notes); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(chart, "templates/notes.yaml"), `notes: {{ tpl (.Files.Get "NOTES.txt") . | toJson }}`)
	stream := mustRun(t, append([]string{"template", "collage", chart, "--namespace", "collage-system", "--show-only", "templates/notes.yaml",
		"--set", "node.directories={/srv/share}"}, repository...)...)
	text := fmt.Sprint(at(decode(t, split(stream)...)[0], "notes"))
	for _, part := range []string{"rollout status deployment/collage-operator", "rollout status daemonset/collage-node",
		"local: {directory: /srv/share}", "pod-security.kubernetes.io/enforce=privileged", "kind: StorageBackend", "helm test collage -n collage-system", "helm uninstall"} {
		if !strings.Contains(text, part) {
			t.Errorf("the notes lack %q:\n%s", part, text)
		}
	}
}

func TestManifestsAndCopiedCRDsAreUpToDate(t *testing.T) {
	command := exec.Command(filepath.Join(root, "manifests/render.sh"), "--check")
	command.Env = append(os.Environ(), "HELM="+helmProgram(t))
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

// Helm leaves what lies in crds/ alone when it uninstalls; rendered as a template, the CRDs and with them every backend would go.
func TestCRDsSurviveUninstall(t *testing.T) {
	for name := range rendered(t) {
		if strings.HasPrefix(name, "CustomResourceDefinition/") {
			t.Errorf("%s is a template", name)
		}
	}
	var documents []string
	files, err := filepath.Glob(filepath.Join(root, "helm/collage/crds/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		documents = append(documents, split(read(t, file))...)
	}
	crds := byName(t, decode(t, documents...))
	for _, name := range []string{"storagebackends", "storagenodes"} {
		if crds["CustomResourceDefinition/"+name+".collage.storage"] == nil {
			t.Errorf("the chart brings no %s", name)
		}
	}
	install := read(t, filepath.Join(root, "manifests/install.yaml"))
	if strings.Contains(install, "kind: CustomResourceDefinition") {
		t.Error("manifests/install.yaml holds CRDs: deleting it would delete every backend")
	}
}

func TestTheRenderedManifestNamesItsNamespaceEverywhere(t *testing.T) {
	objects := byName(t, decode(t, split(read(t, filepath.Join(root, "manifests/install.yaml")))...))
	// Deleting install.yaml must not delete the Secrets and the intents.
	if objects["Namespace/collage-system"] != nil {
		t.Error("install.yaml holds the Namespace")
	}
	for _, name := range []string{"Deployment/collage-operator", "DaemonSet/collage-node", "Role/collage-operator", "ServiceAccount/collage-node"} {
		if objects[name] == nil {
			t.Errorf("no %s in the namespace collage-system", name)
		}
	}
}
