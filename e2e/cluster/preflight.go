package cluster

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// A check looks at one thing that booting needs. It returns what it found, or an error; the remedy goes with the error.
type check struct {
	name   string
	remedy string
	run    func() (found string, err error)
}

// Preflight says what building and booting does to this machine and checks that it can. It changes nothing, and it needs
// nothing that is not on a fresh machine. The purpose is "quickstart", "test" or "bench".
func (c *Cluster) Preflight(purpose string, out io.Writer) error {
	if purpose != "quickstart" && purpose != "test" && purpose != "bench" {
		return fmt.Errorf("preflight for %q: there are quickstart, test and bench", purpose)
	}
	c.describe(purpose, out)
	fmt.Fprintln(out, "Checks")
	failed := 0
	for _, check := range c.checks(purpose) {
		found, err := check.run()
		if err == nil {
			fmt.Fprintf(out, "  ok    %-12s %s\n", check.name, found)
			continue
		}
		failed++
		fmt.Fprintf(out, "  FAIL  %-12s %v\n        remedy:      %s\n", check.name, err, check.remedy)
	}
	fmt.Fprintln(out)
	if failed > 0 {
		return fmt.Errorf("%d of the checks failed; nothing was changed", failed)
	}
	return nil
}

func (c *Cluster) describe(purpose string, out io.Writer) {
	line := func(name, format string, arguments ...any) {
		fmt.Fprintf(out, "  %-10s %s\n", name, fmt.Sprintf(format, arguments...))
	}
	fmt.Fprintf(out, "What 'make %s' does on this machine\n", purpose)
	runs := map[string]string{"quickstart": "3", "test": "15", "bench": "25"}[purpose]
	if c.built() {
		line("time", "about %s minutes: Kubernetes is built already", runs)
	} else {
		line("time", "about %s minutes on 2 cores, the first time 17 more (packages 2, Collage 8, Kubernetes 6, image 1)", runs)
	}
	line("disk", "about 8 GB the first time: %s and Go's and ccache's caches; up to 1 GB of packages", c.shorten(filepath.Dir(filepath.Dir(c.Bin))))
	if purpose == "bench" {
		line("memory", "about 5 GB: the control plane holds 10,000 claims, volumes and pods")
	} else {
		line("memory", "about 1.5 GB while the cluster is up")
	}
	switch missing, err := c.missingPackages(); {
	case err != nil:
		line("packages", "unknown: %v", err)
	case missing == "":
		line("packages", "none, all are installed")
	default:
		words := strings.Fields(missing)
		line("packages", "%d from Debian with what they depend on; no service is started:", len(words))
		for len(words) > 0 {
			text := ""
			for len(words) > 0 && len(text)+len(words[0]) < 100 {
				text += words[0] + " "
				words = words[1:]
			}
			line("", "%s", strings.TrimSpace(text))
		}
	}
	inside := []string{ServiceAddress, ControlPlaneAddress}
	var pods []string
	for _, node := range Nodes {
		inside, pods = append(inside, node.Address), append(pods, node.subnet)
	}
	line("addresses", "none of the host's. In a network namespace of its own the cluster has %s", strings.Join(inside, ", "))
	line("", "on lo, and %s for pods", strings.Join(pods, " and "))
	line("ports", "none of the host's. Inside: 443, 10250, 22379, 22380, 20257, 20259")
	line("sysctls", "none of the host's. Inside: net.ipv4.ip_forward=1")
	line("while up", "cgroups named %s, some loop devices, processes of one process namespace", c.cgroup())
	if purpose == "quickstart" {
		line("after", "'make quickstart-down' removes all of that and the packages that were installed (KEEP=packages leaves")
		line("", "those). There remain build/, which 'make clean' removes, and the caches of Go and ccache")
	} else {
		remover := map[string]string{"test": "'cluster down'", "bench": "the benchmark"}[purpose]
		line("after", "%s removes all of that. There remain build/, the caches of Go and ccache, and the packages:", remover)
		line("", "'make clean' and 'e2e/setup/packages.sh --remove' take those away too")
	}
	fmt.Fprintln(out)
}

func (c *Cluster) checks(purpose string) []check {
	memory := uint64(2500)
	if purpose == "bench" {
		memory = 6500
	}
	return []check{
		{"user", "run it as root: the cluster needs namespaces, mounts and cgroups", func() (string, error) {
			if os.Geteuid() != 0 {
				return "", fmt.Errorf("user id %d is not root", os.Geteuid())
			}
			return "root", nil
		}},
		{"system", "use a machine or VM with Debian 12 (bookworm)", checkSystem},
		{"memory", "free some memory, or give the machine more", func() (string, error) { return checkMemory(memory) }},
		{"processors", "use a machine with two processors: with one the control plane is what is measured", func() (string, error) {
			if purpose == "bench" && runtime.NumCPU() < 2 {
				return "", fmt.Errorf("there is one")
			}
			return fmt.Sprint(runtime.NumCPU()), nil
		}},
		{"disk", "free some space, or put the clone (and GOCACHE, GOMODCACHE, CCACHE_DIR) on a larger file system", c.checkDisk},
		{"folder", "put the clone, or the cluster's --dir, on an ordinary local file system such as ext4, xfs or btrfs", c.checkFolder},
		{"cgroups", "use a machine or VM of its own, with cgroup v2 or with all v1 hierarchies mounted", checkCgroups},
		{"names", "remove what uses them (for a cluster of this project: 'down'), or choose another --name", c.checkNames},
		{"namespaces", "use a machine or VM of its own: an unprivileged container cannot do this", checkNamespaces},
		{"loop", "load the module: modprobe loop", checkLoop},
		{"overlay", "load the module: modprobe overlay", func() (string, error) { return checkFileSystem("overlay") }},
		{"xfs", "load the module: modprobe xfs", func() (string, error) { return checkFileSystem("xfs") }},
		{"ext4", "load the module: modprobe ext4", func() (string, error) { return checkFileSystem("ext4") }},
	}
}

func (c *Cluster) built() bool {
	_, err := os.Stat(filepath.Join(c.Bin, "kube"))
	return err == nil
}

func (c *Cluster) shorten(path string) string {
	if root, err := RepositoryRoot(); err == nil {
		if relative, err := filepath.Rel(root, path); err == nil && !strings.HasPrefix(relative, "..") {
			return relative + "/"
		}
	}
	return path
}

func (c *Cluster) missingPackages() (string, error) {
	root, err := RepositoryRoot()
	if err != nil {
		return "", err
	}
	command := exec.Command("sh", filepath.Join(root, "e2e/setup/packages.sh"), "--missing", "build", "cluster", "image")
	text, err := runFor(command, "packages.sh --missing")
	return strings.TrimSpace(text), err
}

func checkSystem() (string, error) {
	content, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(content)) {
		if key, value, found := strings.Cut(strings.TrimSpace(line), "="); found {
			values[key] = strings.Trim(value, `"`)
		}
	}
	if values["ID"] != "debian" || values["VERSION_ID"] != "12" {
		return "", fmt.Errorf("%s; the packages' names and versions are those of Debian 12", values["PRETTY_NAME"])
	}
	return values["PRETTY_NAME"], nil
}

func checkMemory(needMiB uint64) (string, error) {
	content, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return "", err
	}
	var availableKiB uint64
	for line := range strings.Lines(string(content)) {
		fmt.Sscanf(line, "MemAvailable: %d kB", &availableKiB)
	}
	if availableKiB/1024 < needMiB {
		return "", fmt.Errorf("%d MiB are available and %d are needed", availableKiB/1024, needMiB)
	}
	return fmt.Sprintf("%d MiB available", availableKiB/1024), nil
}

// checkDisk adds up what each file system must hold, since the folders may share one.
func (c *Cluster) checkDisk() (string, error) {
	home, _ := os.UserHomeDir()
	needs := []struct {
		path string
		gib  float64
	}{
		{c.Dir, 3}, // the compiled project, images, the cluster
		{environmentOr("GOCACHE", filepath.Join(home, ".cache/go-build")), 2.5},
		{environmentOr("GOMODCACHE", filepath.Join(environmentOr("GOPATH", filepath.Join(home, "go")), "pkg/mod")), 1.5},
		{"/usr", 1},
	}
	if c.built() {
		needs = needs[:1]
		needs[0].gib = 2
	}
	type room struct{ free, need float64 }
	rooms := map[uint64]*room{}
	var order []uint64
	for _, need := range needs {
		device, free, err := freeSpace(need.path)
		if err != nil {
			return "", err
		}
		if rooms[device] == nil {
			rooms[device] = &room{free: free}
			order = append(order, device)
		}
		rooms[device].need += need.gib
	}
	var found []string
	for _, device := range order {
		space := rooms[device]
		if space.free < space.need {
			return "", fmt.Errorf("%.1f GiB are free and %.1f are needed on the file system of device %d:%d", space.free, space.need,
				device>>8&0xfff, device&0xff)
		}
		found = append(found, fmt.Sprintf("%.0f GiB free, %.1f needed", space.free, space.need))
	}
	return strings.Join(found, "; "), nil
}

func environmentOr(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// existing is the path or its nearest ancestor that exists.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

func freeSpace(path string) (device uint64, gib float64, err error) {
	at := existing(path)
	var stat syscall.Stat_t
	if err := syscall.Stat(at, &stat); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", at, err)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(at, &fs); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", at, err)
	}
	return stat.Dev, float64(fs.Bavail) * float64(fs.Bsize) / (1 << 30), nil
}
