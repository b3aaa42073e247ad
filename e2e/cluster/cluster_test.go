package cluster

import (
	"archive/tar"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	HandleReexec()
	os.Exit(m.Run())
}

func TestGeneratedConfigurationIsTheGoldenOne(t *testing.T) {
	for name, content := range map[string]string{
		"kubelet-cgroup-v1.yaml": kubeletConfig(Nodes[0], "collage-dev", CgroupV1),
		"kubelet-cgroup-v2.yaml": kubeletConfig(Nodes[1], "collage-dev", CgroupV2),
		"containerd.toml":        containerdConfig(Nodes[0]),
		"pods.conflist":          networkConfig(Nodes[1]),
	} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := writeFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if content != string(golden) {
			t.Errorf("%s differs; if that is meant: go test ./cluster -update\n%s", name, content)
		}
	}
	if !json.Valid([]byte(networkConfig(Nodes[0]))) {
		t.Error("the network configuration is not JSON")
	}
}

func testCluster(t *testing.T) *Cluster {
	t.Helper()
	c, err := Open("unit", filepath.Join(t.TempDir(), "unit"), "/bin")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCertificatesAreTrustedForTheirPurpose(t *testing.T) {
	c := testCluster(t)
	if err := c.writePKI(); err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(c.path("pki/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	for _, want := range []struct {
		file, host, commonName, organization string
		usage                                x509.ExtKeyUsage
	}{
		{"pki/apiserver", ServiceAddress, "kube-apiserver", "", x509.ExtKeyUsageServerAuth},
		{"pki/apiserver", ControlPlaneAddress, "kube-apiserver", "", x509.ExtKeyUsageServerAuth},
		{"pki/apiserver", "kubernetes.default.svc", "kube-apiserver", "", x509.ExtKeyUsageServerAuth},
		{"pki/node-a", "10.99.0.11", "node-a", "", x509.ExtKeyUsageServerAuth},
		{"pki/node-b", "10.99.0.12", "node-b", "", x509.ExtKeyUsageServerAuth},
		{"pki/admin", "", "admin", "system:masters", x509.ExtKeyUsageClientAuth},
		{"pki/apiserver-kubelet", "", "apiserver-kubelet", "system:masters", x509.ExtKeyUsageClientAuth},
	} {
		pair, err := tls.LoadX509KeyPair(c.path(want.file+".crt"), c.path(want.file+".key"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: want.host,
			KeyUsages: []x509.ExtKeyUsage{want.usage}}); err != nil {
			t.Errorf("%s for %q: %v", want.file, want.host, err)
		}
		if got := pair.Leaf.Subject.CommonName; got != want.commonName {
			t.Errorf("%s: common name %q, want %q", want.file, got, want.commonName)
		}
		if got := strings.Join(pair.Leaf.Subject.Organization, ","); got != want.organization {
			t.Errorf("%s: organization %q, want %q", want.file, got, want.organization)
		}
	}
	public, err := os.ReadFile(c.path("pki/sa.pub"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(public)
	if block == nil || block.Type != "PUBLIC KEY" {
		t.Error("sa.pub is not a public key")
	}
	if info, err := os.Stat(c.Kubeconfig()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the administrator's kubeconfig: %v, mode %v; want 0600", err, info.Mode())
	}
}

func TestOpenRefusesNamesThatWouldNotFitACgroup(t *testing.T) {
	for _, name := range []string{"", "A", "a/b", "-a", "a-", strings.Repeat("a", 33), "a b", ".."} {
		if _, err := Open(name, "/tmp/x", "/tmp/y"); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

func TestMountTableIsParsed(t *testing.T) {
	entries, err := parseMounts(
		"36 35 98:0 / /mnt\\040a rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n" +
			"24 30 0:22 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []mountEntry{{"/mnt a", "ext3", "rw,errors=continue"}, {"/sys/fs/cgroup/cpu", "cgroup", "rw,cpu,cpuacct"}}
	if !reflect.DeepEqual(entries, want) {
		t.Errorf("got %+v", entries)
	}
	if _, err := parseMounts("nonsense\n"); err == nil {
		t.Error("nonsense was accepted")
	}
}

func TestOwnLoopsAreFoundThroughLoopsAndInnermostFirst(t *testing.T) {
	share, image := fileID{1, 10}, fileID{7<<8 | 0, 5}
	loops := []loopDevice{
		{"/dev/loop0", 7<<8 | 0, share},         // a file of the cluster
		{"/dev/loop1", 7<<8 | 1, image},         // a file in the file system on loop0
		{"/dev/loop2", 7<<8 | 2, fileID{1, 99}}, // somebody else's, on the same disk
		{"/dev/loop3", 7<<8 | 3, fileID{7<<8 | 2, 5}},
	}
	var got []string
	for _, loop := range ownLoops(loops, map[fileID]bool{share: true}) {
		got = append(got, loop.path)
	}
	if want := []string{"/dev/loop1", "/dev/loop0"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestUnifiedCgroupsEnableWhatIsMissing(t *testing.T) {
	root := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := writeFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("cgroup.controllers", "cpuset cpu io memory pids rdma misc\n")
	write("cgroup.subtree_control", "memory pids\n")
	wanted, inactive, err := unifiedControllers(root)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"cpuset", "cpu", "io", "memory", "pids"}; !reflect.DeepEqual(wanted, want) {
		t.Errorf("wanted %v", wanted)
	}
	if want := []string{"cpuset", "cpu", "io", "rdma", "misc"}; !reflect.DeepEqual(inactive, want) {
		t.Errorf("inactive %v", inactive)
	}
	if err := makeUnifiedCgroups(root, "collage-unit", []string{systemCgroup, "node-a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "collage-unit/node-a")); err != nil {
		t.Error(err)
	}
	// A plain file keeps the last write only, which is enough to see that both levels were written.
	for name, want := range map[string]string{"cgroup.subtree_control": "+pids", "collage-unit/cgroup.subtree_control": "+pids"} {
		if content, _ := os.ReadFile(filepath.Join(root, name)); string(content) != want {
			t.Errorf("%s: %q, want %q", name, content, want)
		}
	}
}

func TestSupervisorIsKnownByStartTimeAndBoot(t *testing.T) {
	c := testCluster(t)
	start, err := processStart(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		name  string
		state state
		pid   int
	}{
		{"the process itself", state{BootID: bootID(), Supervisor: os.Getpid(), SupervisorStart: start}, os.Getpid()},
		{"another process with the same id", state{BootID: bootID(), Supervisor: os.Getpid(), SupervisorStart: "1"}, 0},
		{"the same numbers before a reboot", state{BootID: "earlier", Supervisor: os.Getpid(), SupervisorStart: start}, 0},
		{"not yet started", state{BootID: bootID()}, 0},
	} {
		want.state.Name = c.Name
		if err := c.writeState(&want.state); err != nil {
			t.Fatal(err)
		}
		if got := c.supervisorPID(); got != want.pid {
			t.Errorf("%s: %d, want %d", want.name, got, want.pid)
		}
	}
}

func TestFolderOfSomethingElseIsNeverTouched(t *testing.T) {
	c := testCluster(t)
	if err := c.checkOwnFolder(); err != nil {
		t.Errorf("a folder that is not there: %v", err)
	}
	precious := c.path("precious")
	if err := writeFile(precious, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.Down(io.Discard); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("Down of a folder that is not a cluster's: %v", err)
	}
	if err := c.writeState(&state{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Down(io.Discard); err == nil || !strings.Contains(err.Error(), "--name") {
		t.Errorf("Down of another cluster's folder: %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestImageArchiveNamesItsContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.tar")
	images := map[string][]string{"localhost/one:local": {"/bin/sh"}, "localhost/two:local": {"/bin/true"}}
	if err := writeImageArchive(path, []byte("layer"), images); err != nil {
		t.Fatal(err)
	}
	files := readTar(t, path)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil || len(manifest) != 2 {
		t.Fatalf("manifest: %v, %s", err, files["manifest.json"])
	}
	for _, image := range manifest {
		var config struct {
			Config struct{ Cmd []string }
			RootFS struct {
				DiffIDs []string `json:"diff_ids"`
			}
		}
		if err := json.Unmarshal(files[image.Config], &config); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(config.Config.Cmd, images[image.RepoTags[0]]) {
			t.Errorf("%v runs %v", image.RepoTags, config.Config.Cmd)
		}
		if want := "sha256:" + digest(files[image.Layers[0]]); config.RootFS.DiffIDs[0] != want {
			t.Errorf("%v: diff id %v, want %s", image.RepoTags, config.RootFS.DiffIDs, want)
		}
	}
}

func readTar(t *testing.T, path string) map[string][]byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	files := map[string][]byte{}
	for in := tar.NewReader(file); ; {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFailureShowsTheEndOfTheLogAndTheRemedy(t *testing.T) {
	log := filepath.Join(t.TempDir(), "x.log")
	lines := strings.Repeat("early\n", 100) + "the reason\n"
	if err := os.WriteFile(log, []byte(lines), 0o644); err != nil {
		t.Fatal(err)
	}
	text := (&Failure{Problem: "it broke", Log: log, Remedy: "mend it"}).Error()
	for _, want := range []string{"it broke", "remedy: mend it", log, "    the reason"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %q", want, text)
		}
	}
	if strings.Count(text, "early") != 14 {
		t.Errorf("the end of the log is 15 lines, not %q", text)
	}
}
