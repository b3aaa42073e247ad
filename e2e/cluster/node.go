package cluster

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// enterNode is the start of a command line, for a process inside the cluster, that runs the rest in the node's mounts.
func (c *Cluster) enterNode(node string) ([]string, error) {
	pid, err := os.ReadFile(c.holderFile(node))
	if err != nil {
		return nil, fmt.Errorf("%s has no namespace: %w", node, err)
	}
	path, err := lookProgram("nsenter")
	return []string{path, "--target", string(pid), "--mount", "--"}, err
}

// holderFile names the process that holds the node's mount namespace. (Binding the namespace to a file would need no
// process, but newer kernels refuse that at random: they compare ids that are not in order across processors.)
func (c *Cluster) holderFile(node string) string { return c.path(node, "holder.pid") }

// makeNodes gives each node its mount namespace, made and held by a child for as long as the cluster lives.
func (s *supervisor) makeNodes() error {
	for _, node := range Nodes {
		for _, folder := range []string{"kubelet", "lib", "log", "opt", "pki", "containerd"} {
			if err := os.MkdirAll(s.c.path(node.Name, folder), 0o755); err != nil {
				return err
			}
		}
		if err := s.makeNode(node); err != nil {
			return fmt.Errorf("%s: %w", node.Name, err)
		}
	}
	return nil
}

func (s *supervisor) makeNode(node Node) error {
	log, err := s.openLog("setup")
	if err != nil {
		return err
	}
	defer log.Close()
	doneRead, doneWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer doneRead.Close()
	s.mu.Lock()
	pid, exited, err := s.spawn("/proc/self/exe", []string{nodeProgram, s.c.Name, s.c.Dir, s.c.Bin, node.Name}, log,
		&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Setsid: true}, doneWrite.Fd())
	s.mu.Unlock()
	doneWrite.Close()
	if err != nil {
		return err
	}
	if n, _ := doneRead.Read(make([]byte, 1)); n != 1 {
		return &Failure{Problem: "making its mounts: " + describeExit(<-exited), Log: s.c.LogPath("setup")}
	}
	return writeFile(s.c.holderFile(node.Name), []byte(strconv.Itoa(pid)), 0o644)
}

// nodeMain makes the mounts of one node in the fresh mount namespace that it was started in, says so on descriptor 3, and
// then only holds that namespace.
func nodeMain(c *Cluster, name string) int {
	if err := c.makeNodeMounts(name); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	done := os.NewFile(3, "done")
	done.Write([]byte{1})
	done.Close()
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	for {
		time.Sleep(time.Hour)
	}
}

func (c *Cluster) makeNodeMounts(name string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	// The cluster's folder may lie below what is about to be covered, so it is held by descriptor.
	held := map[string]*os.File{}
	for target, source := range map[string]string{nodeClusterDir: c.Dir, nodeBinDir: c.Bin} {
		folder, err := os.Open(source)
		if err != nil {
			return err
		}
		defer folder.Close()
		held[target] = folder
	}
	for _, path := range []string{"/run", "/var/lib", "/srv"} {
		if err := mountTmpfs(path); err != nil {
			return err
		}
	}
	for target, folder := range held {
		if err := bind(fmt.Sprintf("/proc/self/fd/%d", folder.Fd()), target); err != nil {
			return err
		}
	}
	own := nodeClusterDir + "/" + name
	for _, pair := range [][2]string{
		{own + "/kubelet", KubeletDir},
		{own + "/lib", StateDir},
		{own + "/log", "/var/log"},
		{nodeClusterDir + "/share", ShareDir},
	} {
		if err := bind(pair[0], pair[1]); err != nil {
			return err
		}
	}
	if err := shieldSysctls(); err != nil {
		return err
	}
	// As on a machine with systemd: pods may ask for mounts that propagate, from any folder. The peers are this node's
	// containers only.
	return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, "")
}

// shieldSysctls lays files with the values that a kubelet wants over the machine-wide sysctls that it would write, so
// that it reads what it wants and writes nothing.
func shieldSysctls() error {
	for path, value := range map[string]string{
		"/proc/sys/vm/overcommit_memory":      "1",
		"/proc/sys/vm/panic_on_oom":           "0",
		"/proc/sys/kernel/panic":              "10",
		"/proc/sys/kernel/panic_on_oops":      "1",
		"/proc/sys/kernel/keys/root_maxkeys":  "1000000",
		"/proc/sys/kernel/keys/root_maxbytes": "25000000",
	} {
		shield := filepath.Join("/run/sysctl", path)
		if err := writeFile(shield, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := syscall.Mount(shield, path, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("shield %s: %w", path, err)
		}
	}
	return nil
}

func mountTmpfs(path string) error {
	if err := syscall.Mount("tmpfs", path, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", path, err)
	}
	return nil
}

func bind(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(source, target, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", source, target, err)
	}
	return nil
}
