package cluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// Down removes the cluster and everything that it made. It is safe to repeat, and after a crash at any point.
func (c *Cluster) Down(out io.Writer) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.checkOwnFolder(); err != nil {
		return err
	}
	say := func(format string, arguments ...any) {
		fmt.Fprintf(out, "cluster %s: %s\n", c.Name, fmt.Sprintf(format, arguments...))
	}
	_, err = os.Stat(c.Dir)
	existed := err == nil
	if err := c.remove(true, say); err != nil {
		return err
	}
	os.Remove(c.Dir + ".lock")
	if existed {
		say("removed")
	} else {
		say("there is none")
	}
	return nil
}

// remove ends the cluster's processes and takes away its loop devices, cgroups and, if told so, its folder. The caller
// holds the lock and has checked that the folder is a cluster's.
func (c *Cluster) remove(withFolder bool, say func(string, ...any)) error {
	if pid := c.supervisorPID(); pid != 0 {
		say("ending its processes")
		if err := endSupervisor(pid); err != nil {
			return err
		}
	}
	// Those of a supervisor that was killed a moment ago, by us or by others, take a moment to be gone.
	others := cgroupProcesses(c.cgroup())
	for deadline := time.Now().Add(10 * time.Second); len(others) > 0 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
		others = cgroupProcesses(c.cgroup())
	}
	if len(others) > 0 {
		return &Failure{
			Problem: fmt.Sprintf("processes %s run in cgroup %s and are not this cluster's", strings.Join(others, ", "), c.cgroup()),
			Remedy:  "another cluster of the same name with another folder? Remove it first, or choose another --name"}
	}
	if err := c.releaseAllLoops(say); err != nil {
		return err
	}
	var inactive []string
	s, err := c.readState()
	if err == nil && s.BootID == bootID() {
		inactive = s.InactiveControllers
	}
	if err := removeCgroups(c.cgroup(), inactive); err != nil {
		return err
	}
	if withFolder {
		return c.removeFolder()
	}
	return nil
}

// releaseAllLoops repeats until none is left: the kernel may still be taking apart the namespaces that used them.
func (c *Cluster) releaseAllLoops(say func(string, ...any)) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		loops, err := c.releaseLoops()
		if err != nil || len(loops) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return &Failure{Problem: strings.Join(loops, ", ") + " over the cluster's files cannot be released",
				Remedy: "some process of this machine uses it: see 'losetup --list' and 'findmnt'"}
		}
		say("released %s", strings.Join(loops, " "))
	}
}

// endSupervisor kills the init of the cluster's process namespace. The kernel then kills all others in it.
func endSupervisor(pid int) error {
	start, err := processStart(pid)
	if err != nil {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		return err
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		now, err := processStart(pid)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && now != start) {
			return nil
		}
		if time.Now().After(deadline) {
			return &Failure{Problem: fmt.Sprintf("the cluster's processes do not end (init is process %d)", pid),
				Remedy: "one of them hangs in the kernel, for example on a dead network file system; restart the machine if it stays so"}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// removeFolder never crosses into a mounted file system.
func (c *Cluster) removeFolder() error {
	mounts, err := mountsBelow(c.Dir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return &Failure{Problem: "something is mounted in the cluster's folder: " + strings.Join(mounts, ", "),
			Remedy: "unmount it; the cluster itself mounts nothing there on the host"}
	}
	return os.RemoveAll(c.Dir)
}
