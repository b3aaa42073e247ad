package cluster

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// boot makes the cluster inside the namespaces that the supervisor was started in.
func (s *supervisor) boot() error {
	version, err := DetectCgroups()
	if err != nil {
		return err
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"cgroups", func() error { return joinCgroups(s.c.cgroup(), version) }},
		{"mounts", s.makeMounts},
		{"addresses", s.makeAddresses},
		{"etcd", func() error { return s.start(s.c.controlPlane()[0]) }},
		{"API server", func() error { return s.start(s.c.controlPlane()[1]) }},
		{"shared file system", s.makeShare},
		{"node namespaces", s.makeNodes},
		{"control socket", s.serveControl},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	s.step("namespaces, addresses and the shared file system are made; control plane and containerd are starting")
	if err := s.startContainerd(); err != nil {
		return err
	}
	s.step("containerd runs on both nodes and has its images")
	client, err := newAPIClient(s.c)
	if err != nil {
		return err
	}
	if err := s.await("kube-apiserver", "the API server to be ready", 3*time.Minute, client.ready); err != nil {
		return err
	}
	s.step("the API server answers")
	rest := s.c.controlPlane()[2:]
	for _, node := range Nodes {
		rest = append(rest, kubeletComponent(node))
	}
	for _, what := range rest {
		if err := s.start(what); err != nil {
			return err
		}
	}
	if err := s.await("node-a/kubelet", "both nodes to be Ready", 5*time.Minute, client.nodesReady); err != nil {
		return err
	}
	s.step("both nodes are Ready")
	return s.await("kube-controller-manager", "the default service account", time.Minute, client.serviceAccount)
}

// await polls until the condition holds. It fails at once when a component has died, with the end of that one's log.
func (s *supervisor) await(culprit, what string, limit time.Duration, condition func() error) error {
	deadline := time.Now().Add(limit)
	nextNote := time.Now().Add(10 * time.Second)
	for {
		err := condition()
		if err == nil {
			return nil
		}
		if p := s.dead(); p != nil {
			return &Failure{Problem: p.name + " " + p.lastExit, Log: s.c.LogPath(p.name),
				Remedy: "the end of its log says why; 'preflight' checks what the machine must offer"}
		}
		if time.Now().After(deadline) {
			return &Failure{Problem: fmt.Sprintf("waited %s for %s: %v", limit, what, err), Log: s.c.LogPath(culprit),
				Remedy: "see the logs; on a busy machine, try again when it is idle"}
		}
		if time.Now().After(nextNote) {
			nextNote = time.Now().Add(10 * time.Second)
			s.step("still waiting for %s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// makeMounts gives the namespace its own /proc and /run and cuts it off from the host's mount events.
func (s *supervisor) makeMounts() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// mount(8) keeps notes in /run, which must not be the host's.
	return mountTmpfs("/run")
}

func (s *supervisor) makeAddresses() error {
	commands := [][]string{{"ip", "link", "set", "lo", "up"}}
	addresses := []string{ServiceAddress, ControlPlaneAddress}
	for _, node := range Nodes {
		addresses = append(addresses, node.Address)
	}
	for _, address := range addresses {
		commands = append(commands, []string{"ip", "addr", "add", address + "/32", "dev", "lo"})
	}
	for _, command := range commands {
		if err := s.run(command...); err != nil {
			return err
		}
	}
	// A sysctl of this network namespace, not of the host.
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

// makeShare mounts a file system that can clone files (reflinks), which stands for storage that both nodes reach.
func (s *supervisor) makeShare() error {
	image, share := s.c.path("share.img"), s.c.path("share")
	if err := writeFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, shareBytes); err != nil {
		return err
	}
	if err := os.MkdirAll(share, 0o755); err != nil {
		return err
	}
	if err := s.run("mkfs.xfs", "-q", "-m", "reflink=1", image); err != nil {
		return err
	}
	// A loop device keeps a read-only mark (BLKROSET) that an earlier user gave it, and mount(8) would then quietly mount
	// read-only. So: attach, clear the mark, mount, and detach, which takes effect with the last unmount.
	return s.run("sh", "-ec", `device=$(losetup --find --show "$1")
trap 'losetup --detach "$device"' EXIT
blockdev --setrw "$device"
mount --rw "$device" "$2"`, "sh", image, share)
}

// startContainerd starts containerd on each node and gives it the images that every cluster needs.
func (s *supervisor) startContainerd() error {
	for _, node := range Nodes {
		if err := s.start(containerdComponent(node)); err != nil {
			return err
		}
	}
	for _, node := range Nodes {
		enter, err := s.c.enterNode(node.Name)
		if err != nil {
			return err
		}
		version := append(enter[:len(enter):len(enter)], "ctr", "version")
		err = s.await(node.Name+"/containerd", node.Name+"'s containerd", 2*time.Minute,
			func() error { return s.run(version...) })
		if err != nil {
			return err
		}
		if err := s.run(append(enter, "ctr", "--namespace", "k8s.io", "images", "import", nodeClusterDir+"/images.tar")...); err != nil {
			return err
		}
	}
	return os.Remove(s.c.path("images.tar"))
}

func childEnvironment() []string {
	return []string{"PATH=" + searchPath, "HOME=/root", "LANG=C.UTF-8"}
}

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookProgram finds a program where Debian has them, whatever the caller's PATH is.
func lookProgram(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return name, nil
	}
	for _, folder := range strings.Split(searchPath, ":") {
		path := folder + "/" + name
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", &Failure{Problem: "the program " + name + " is not installed", Remedy: "sh e2e/setup/packages.sh cluster"}
}
