package chart

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

func TestLintIsClean(t *testing.T) {
	for _, arguments := range [][]string{nil, repository} {
		output := mustRun(t, append([]string{"lint", "--strict", filepath.Join(root, "helm/collage")}, arguments...)...)
		if strings.Contains(output, "WARNING") || strings.Contains(output, "ERROR") {
			t.Errorf("helm lint %v:\n%s", arguments, output)
		}
	}
}

func TestAMissingRepositorySaysHowToBuildAndPush(t *testing.T) {
	cases := map[string][]string{
		"left out":           nil,
		"empty":              {"--set", "image.repository="},
		"without the schema": {"--set", "image.repository=", "--skip-schema-validation"},
	}
	for name, arguments := range cases {
		_, err := template(t, arguments...)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		for _, part := range []string{"image.repository", "make push IMAGE=", "--set image.repository="} {
			if !strings.Contains(strings.ReplaceAll(err.Error(), "/image/repository", "image.repository"), part) {
				t.Errorf("%s: the message lacks %q:\n%v", name, part, err)
			}
		}
	}
}

func TestWrongValuesAreRefused(t *testing.T) {
	cases := []struct{ name, set, message string }{
		{"an unknown value", "bogus=1", "'bogus' not allowed"},
		{"an unknown controller value", "controller.replicas=3", "'replicas' not allowed"},
		{"an unknown node value", "node.bogus=1", "'bogus' not allowed"},
		{"no image values at all", "image=null", "missing property 'image'"},
		{"an unknown image value", "image.name=x", "'name' not allowed"},
		{"a repository with a capital letter", "image.repository=Registry/collage", "/image/repository"},
		{"a repository with a tag's space", "image.repository=a b", "/image/repository"},
		{"a tag that is none", "image.tag=a/b", "/image/tag"},
		{"a pull policy that does not exist", "image.pullPolicy=Sometimes", "/image/pullPolicy"},
		{"a pull secret without a name", "imagePullSecrets[0].nam=x", "/imagePullSecrets/0"},
		{"too many replicas", "controller.replicaCount=6", "/controller/replicaCount"},
		{"replicas in words", "controller.replicaCount=two", "/controller/replicaCount"},
		{"a port that is none", "controller.port=70000", "/controller/port"},
		{"a node port of zero", "node.port=0", "/node/port"},
		{"a relative kubelet path", "kubeletPath=var/lib/kubelet", "/kubeletPath"},
		{"a kubelet path with a slash at its end", "kubeletPath=/var/lib/kubelet/", "/kubeletPath"},
		{"a path with two dots", "node.stateDirectory=/var/../etc", "/node/stateDirectory"},
		{"a relative directory", "node.directories={srv/share}", "/node/directories/0"},
		{"the root directory", "node.directories={/}", "/node/directories/0"},
		{"a directory twice", "node.directories={/srv/a,/srv/a}", "/node/directories"},
		{"a directory of the image", "node.directories={/usr/share/volumes}", "/usr/share/volumes lies in /usr"},
		{"the devices", "node.directories={/dev}", "/dev lies in /dev"},
		{"all of /var/lib", "node.directories={/var/lib}", "/var/lib is too wide"},
		{"a directory below the kubelet's", "node.directories={/var/lib/kubelet/volumes}", "below kubeletPath"},
		{"a state directory in /tmp", "node.stateDirectory=/tmp/collage", "/tmp/collage lies in /tmp"},
		{"a propagation that does not exist", "node.directoryPropagation=Both", "/node/directoryPropagation"},
		{"two agents at once on a node", "node.updateStrategy.rollingUpdate.maxSurge=1", "maxSurge"},
		{"an update strategy of Deployments", "node.updateStrategy.type=Recreate", "/node/updateStrategy/type"},
		{"a cluster id with a space", "clusterID=my cluster", "/clusterID"},
		{"a log level that does not exist", "log.level=trace", "/log/level"},
		{"a log format that does not exist", "log.format=xml", "/log/format"},
		{"a namespace that is none", "rbac.secretNamespaces={Team_A}", "/rbac/secretNamespaces/0"},
		{"a Secret's name that is none", "rbac.secretNames={Fast_Admin}", "/rbac/secretNames/0"},
		{"a Secret twice", "rbac.secretNames={a,a}", "/rbac/secretNames"},
		{"pods to delete in words", "rbac.deletePods=sometimes", "/rbac/deletePods"},
		{"an unknown rbac value", "rbac.create=true", "'create' not allowed"},
		{"an agents' namespace that is none", "node.namespace=Agents", "/node/namespace"},
		{"a network policy in words", "networkPolicy.enabled=on", "/networkPolicy/enabled"},
		{"an unknown network policy value", "networkPolicy.ingress=true", "'ingress' not allowed"},
		{"a peer that is none", "networkPolicy.metricsFrom[0].cidr=10.0.0.0/8", "/networkPolicy/metricsFrom/0"},
		{"an egress rule with an ingress rule's key", "networkPolicy.operatorEgress[0].from[0].podSelector.a=b", "/networkPolicy/operatorEgress/0"},
		{"a spread without a key", "controller.topologySpreadConstraints[0].maxSkew=1", "/controller/topologySpreadConstraints/0"},
		{"a test's class that is none", "test.storageClass=My Class", "/test/storageClass"},
		{"a test's size that is none", "test.size=much", "/test/size"},
		{"a policy in words", "admissionPolicy.enabled=yes please", "/admissionPolicy/enabled"},
		{"an interval without a unit", "metrics.serviceMonitor.interval=thirty", "/metrics/serviceMonitor/interval"},
		{"an effect that does not exist", "controller.tolerations[0].effect=Never", "/controller/tolerations/0/effect"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := template(t, append(append([]string{}, repository...), "--set", c.set)...)
			if err == nil {
				t.Fatalf("--set %s is accepted", c.set)
			}
			if !strings.Contains(err.Error(), c.message) {
				t.Errorf("the message lacks %q:\n%v", c.message, err)
			}
		})
	}
}

func TestKubernetesBefore130IsRefused(t *testing.T) {
	// "v1/Pod" makes the chart see a cluster, one that has no ValidatingAdmissionPolicy.
	old := append(append([]string{}, repository...), "--api-versions", "v1/Pod")
	if _, err := template(t, old...); err == nil || !strings.Contains(err.Error(), "Kubernetes 1.30 or later") {
		t.Errorf("want a message about the version, got %v", err)
	}
	if _, err := template(t, append(old, "--set", "admissionPolicy.enabled=false")...); err != nil {
		t.Error(err)
	}
}

// Every property of the schema is shown and explained in values.yaml, so that a reader of one misses nothing of the other.
func TestValuesShowEveryPropertyOfTheSchema(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal([]byte(read(t, filepath.Join(root, "helm/collage/values.schema.json"))), &schema); err != nil {
		t.Fatal(err)
	}
	values := read(t, filepath.Join(root, "helm/collage/values.yaml"))
	var check func(path string, node map[string]any)
	check = func(path string, node map[string]any) {
		properties, _ := node["properties"].(map[string]any)
		for name, child := range properties {
			if path == "" && name == "global" {
				continue // Helm's own
			}
			if path == ".node.updateStrategy.rollingUpdate" {
				continue // Kubernetes' own
			}
			if !strings.Contains(values, name+":") {
				t.Errorf("values.yaml does not show %s.%s", path, name)
			}
			check(path+"."+name, child.(map[string]any))
		}
	}
	check("", schema)
}

func TestThePackagedChartRendersTheSame(t *testing.T) {
	folder := t.TempDir()
	mustRun(t, "package", filepath.Join(root, "helm/collage"), "--destination", folder)
	packages, err := filepath.Glob(filepath.Join(folder, "collage-*.tgz"))
	if err != nil || len(packages) != 1 {
		t.Fatalf("%v, %v", packages, err)
	}
	arguments := append([]string{"--namespace", "collage-system", "--include-crds"}, repository...)
	want := mustRun(t, append([]string{"template", "collage", filepath.Join(root, "helm/collage")}, arguments...)...)
	got := mustRun(t, append([]string{"template", "collage", packages[0]}, arguments...)...)
	if got != want {
		t.Error("the package renders something else than its folder")
	}
}
