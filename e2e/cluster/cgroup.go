package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// The cluster's cgroups, in every hierarchy: collage-<name>/{system,node-a,node-b}. The supervisor and with it all
// daemons are in "system", which also takes them out of the login session that started them; pods are under their node.
const systemCgroup = "system"

// DetectCgroups says which layout the machine has.
func DetectCgroups() (CgroupVersion, error) {
	const cgroup2Magic = 0x63677270
	var stat syscall.Statfs_t
	if err := syscall.Statfs(cgroupRoot, &stat); err != nil {
		return 0, fmt.Errorf("%s: %w", cgroupRoot, err)
	}
	if int64(stat.Type) == cgroup2Magic {
		return CgroupV2, nil
	}
	mounts, err := cgroupMounts()
	if err != nil {
		return 0, err
	}
	for _, controller := range []string{"cpu", "cpuset", "memory", "pids", "devices"} {
		if !slices.ContainsFunc(mounts, func(m cgroupMount) bool { return slices.Contains(m.options, controller) }) {
			return 0, fmt.Errorf("no cgroup v1 hierarchy with the controller %q is mounted under %s", controller, cgroupRoot)
		}
	}
	return CgroupV1, nil
}

type cgroupMount struct {
	path    string
	options []string // v1: names of controllers among them
}

// cgroupMounts lists every mounted hierarchy, of both versions.
func cgroupMounts() ([]cgroupMount, error) {
	entries, err := readMounts()
	if err != nil {
		return nil, err
	}
	var mounts []cgroupMount
	for _, entry := range entries {
		if entry.fsType == "cgroup" || entry.fsType == "cgroup2" {
			mounts = append(mounts, cgroupMount{entry.mountPoint, strings.Split(entry.superOptions, ",")})
		}
	}
	if len(mounts) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted")
	}
	return mounts, nil
}

// makeCgroups creates the cluster's cgroups.
func makeCgroups(name string, version CgroupVersion) error {
	children := []string{systemCgroup}
	for _, node := range Nodes {
		children = append(children, node.Name)
	}
	if version == CgroupV2 {
		return makeUnifiedCgroups(cgroupRoot, name, children)
	}
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, mount := range mounts {
		for _, folder := range append([]string{""}, children...) {
			path := filepath.Join(mount.path, name, folder)
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
			// A new cpuset is empty and takes no process until it has processors and memory nodes.
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				if err := copyCgroupValue(filepath.Dir(path), path, file); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func copyCgroupValue(parent, child, file string) error {
	value, err := os.ReadFile(filepath.Join(parent, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(child, file), value, 0o644)
}

// unifiedControllers returns the controllers that a kubelet wants of those the machine has, and all that are not enabled
// below the root: runc enables every one there is.
func unifiedControllers(root string) (wanted, inactive []string, err error) {
	available, err := readWords(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return nil, nil, err
	}
	active, err := readWords(filepath.Join(root, "cgroup.subtree_control"))
	if err != nil {
		return nil, nil, err
	}
	for _, controller := range available {
		if slices.Contains([]string{"cpu", "cpuset", "hugetlb", "io", "memory", "pids"}, controller) {
			wanted = append(wanted, controller)
		}
		if !slices.Contains(active, controller) {
			inactive = append(inactive, controller)
		}
	}
	return wanted, inactive, nil
}

func makeUnifiedCgroups(root, name string, children []string) error {
	wanted, _, err := unifiedControllers(root)
	if err != nil {
		return err
	}
	top := filepath.Join(root, name)
	if err := os.MkdirAll(top, 0o755); err != nil {
		return err
	}
	for _, folder := range []string{root, top} {
		if err := setControllers(folder, "+", wanted); err != nil {
			return fmt.Errorf("enable cgroup controllers %v: %w", wanted, err)
		}
	}
	for _, child := range children {
		if err := os.MkdirAll(filepath.Join(top, child), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func setControllers(folder, sign string, controllers []string) error {
	for _, controller := range controllers {
		if err := os.WriteFile(filepath.Join(folder, "cgroup.subtree_control"), []byte(sign+controller), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// joinCgroups moves the calling process into the cluster's system cgroup of every hierarchy.
func joinCgroups(name string, version CgroupVersion) error {
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	if version == CgroupV2 {
		mounts = []cgroupMount{{path: cgroupRoot}}
	}
	for _, mount := range mounts {
		// "0" is the writer itself, which is right in any process namespace.
		if err := os.WriteFile(filepath.Join(mount.path, name, systemCgroup, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// cgroupProcesses lists the processes in the cluster's cgroups, by their ids on the host.
func cgroupProcesses(name string) []string {
	var processes []string
	visitCgroups(name, func(path string) {
		words, _ := readWords(filepath.Join(path, "cgroup.procs"))
		for _, word := range words {
			if !slices.Contains(processes, word) {
				processes = append(processes, word)
			}
		}
	})
	return processes
}

// visitCgroups calls visit for each of the cluster's cgroups, children first.
func visitCgroups(name string, visit func(path string)) {
	mounts, err := cgroupMounts()
	if err != nil {
		return
	}
	for _, mount := range mounts {
		var folders []string
		filepath.WalkDir(filepath.Join(mount.path, name), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				folders = append(folders, path)
			}
			return nil
		})
		slices.Reverse(folders)
		for _, folder := range folders {
			visit(folder)
		}
	}
}

// removeCgroups removes the cluster's cgroups, which are empty of processes or about to be: the kernel takes a moment to
// let go of those that just ended.
func removeCgroups(name string, inactive []string) error {
	var last error
	for range 50 {
		last = nil
		visitCgroups(name, func(path string) {
			if err := syscall.Rmdir(path); err != nil && err != syscall.ENOENT {
				last = fmt.Errorf("remove cgroup %s: %w", path, err)
			}
		})
		if last == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if last != nil {
		return last
	}
	for _, controller := range inactive {
		// Somebody else may use the controller by now; the kernel then refuses, rightly.
		_ = setControllers(cgroupRoot, "-", []string{controller})
	}
	return nil
}

func readWords(path string) ([]string, error) {
	content, err := os.ReadFile(path)
	return strings.Fields(string(content)), err
}
