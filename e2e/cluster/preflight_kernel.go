package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// checkFolder makes sure that container layers can be kept there and that nothing in the cluster covers the folder.
func (c *Cluster) checkFolder() (string, error) {
	for _, covered := range []string{"/run", "/proc", "/sys", "/dev"} {
		if strings.HasPrefix(c.Dir+"/", covered+"/") || strings.HasPrefix(c.Bin+"/", covered+"/") {
			return "", fmt.Errorf("%s is below %s, which the cluster covers with its own", c.Dir, covered)
		}
	}
	if err := c.checkOwnFolder(); err != nil {
		return "", err
	}
	var stat syscall.Statfs_t
	if err := syscall.Statfs(existing(c.Dir), &stat); err != nil {
		return "", err
	}
	unfit := map[uint32]string{0x794c7630: "overlay", 0x6969: "nfs", 0xff534d42: "cifs", 0xfe534d42: "smb2", 0x65735546: "fuse",
		0x01021997: "9p", 0x6a656a63: "virtiofs"}
	if name, bad := unfit[uint32(stat.Type)]; bad {
		return "", fmt.Errorf("%s is on %s, which cannot hold the layers of containers", c.Dir, name)
	}
	return c.Dir, nil
}

func checkCgroups() (string, error) {
	version, err := DetectCgroups()
	if err != nil {
		return "", err
	}
	if version == CgroupV1 {
		return "version 1", nil
	}
	// The true root has no type. In a container the root is somebody's child and holds processes, so that no
	// controller can be enabled below it.
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.type")); err == nil {
		return "", fmt.Errorf("%s is not the root of the hierarchy: this seems to be a container", cgroupRoot)
	}
	available, err := readWords(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return "", err
	}
	for _, controller := range []string{"cpu", "cpuset", "memory", "pids"} {
		if !slices.Contains(available, controller) {
			return "", fmt.Errorf("cgroup v2 lacks the controller %q", controller)
		}
	}
	return "version 2", nil
}

// checkNames looks whether the cluster's cgroup is somebody else's.
func (c *Cluster) checkNames() (string, error) {
	if c.supervisorPID() != 0 {
		return "cluster " + c.Name + " is up already", nil
	}
	if processes := cgroupProcesses(c.cgroup()); len(processes) > 0 {
		return "", fmt.Errorf("cgroup %s is in use by processes %s", c.cgroup(), strings.Join(processes, ", "))
	}
	return "cluster " + c.Name + ", cgroup " + c.cgroup(), nil
}

func checkNamespaces() (string, error) {
	program, err := lookProgram("true")
	if err != nil {
		return "", err
	}
	command := exec.Command(program)
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID}
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("cannot make network, mount and process namespaces: %w", err)
	}
	return "network (so that no port or address can clash), mount, process", nil
}

func checkLoop() (string, error) {
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return "", err
	}
	return "/dev/loop-control", nil
}

// checkFileSystem looks whether the kernel has it or has a module for it, which mount(2) loads.
func checkFileSystem(name string) (string, error) {
	content, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return "", err
	}
	if slices.Contains(strings.Fields(string(content)), name) {
		return "in the kernel", nil
	}
	var release syscall.Utsname
	if err := syscall.Uname(&release); err != nil {
		return "", err
	}
	var text strings.Builder
	for _, char := range release.Release {
		if char == 0 {
			break
		}
		text.WriteByte(byte(char))
	}
	modules, err := os.ReadFile(filepath.Join("/lib/modules", text.String(), "modules.dep"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if strings.Contains(string(modules), "/"+name+".ko") {
		return "as a module", nil
	}
	return "", fmt.Errorf("the kernel %s has no %s and no module for it", text.String(), name)
}
