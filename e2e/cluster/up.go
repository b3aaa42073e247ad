package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Up boots the cluster and returns when both nodes are Ready, or says at once that it is up already. What a crash left
// behind is removed first. Progress goes to out, a line a step. When ctx ends before that, the cluster is removed again.
func (c *Cluster) Up(ctx context.Context, out io.Writer) error {
	if os.Geteuid() != 0 {
		return &Failure{Problem: "the cluster needs root, for namespaces, mounts and cgroups", Remedy: "become root"}
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if c.supervisorPID() != 0 {
		return c.confirmUp(ctx, out)
	}
	began := time.Now()
	say := func(format string, arguments ...any) {
		fmt.Fprintf(out, "cluster %s [%5.1f s] %s\n", c.Name, time.Since(began).Seconds(), fmt.Sprintf(format, arguments...))
	}
	version, err := c.prepare(say)
	if err != nil {
		return err
	}
	err = c.launch(ctx, version, say)
	if err != nil {
		// The logs stay for the person to read.
		if clean := c.remove(false, func(string, ...any) {}); clean != nil {
			return fmt.Errorf("%w\n  and what was started could not be removed: %v", err, clean)
		}
		return err
	}
	say("up: %s/kube, folder %s", c.Bin, c.Dir)
	return nil
}

func (c *Cluster) confirmUp(ctx context.Context, out io.Writer) error {
	status, err := c.Status(ctx)
	for deadline := time.Now().Add(20 * time.Second); (err != nil || !status.Ready) && time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
		status, err = c.Status(ctx)
	}
	if err == nil && !status.Ready {
		err = fmt.Errorf("%s", status.Problem)
	}
	if err != nil {
		return &Failure{Problem: fmt.Sprintf("cluster %s is running but not well: %v", c.Name, err),
			Remedy: "'status' shows its components; 'down' and 'up' make a new one"}
	}
	fmt.Fprintf(out, "cluster %s is up already\n", c.Name)
	return nil
}

// prepare removes what an earlier cluster left and writes the new one's files.
func (c *Cluster) prepare(say func(string, ...any)) (CgroupVersion, error) {
	version, err := DetectCgroups()
	if err != nil {
		return 0, &Failure{Problem: err.Error(), Remedy: "mount the cgroup file systems, or use a machine that has them"}
	}
	if err := c.checkOwnFolder(); err != nil {
		return 0, err
	}
	if err := c.checkPrograms(); err != nil {
		return 0, err
	}
	if err := c.remove(true, say); err != nil {
		return 0, err
	}
	s := &state{Name: c.Name, BootID: bootID()}
	if version == CgroupV2 {
		if _, s.InactiveControllers, err = unifiedControllers(cgroupRoot); err != nil {
			return 0, err
		}
	}
	if err := c.writeState(s); err != nil {
		return 0, err
	}
	for _, node := range Nodes {
		if err := os.MkdirAll(c.path(node.Name), 0o755); err != nil {
			return 0, err
		}
	}
	if err := c.writePKI(); err != nil {
		return 0, err
	}
	// Here, since it runs a program and reads what that prints: the supervisor reaps every child, and would be first.
	if err := writeBaseImages(c.path("images.tar")); err != nil {
		return 0, err
	}
	return version, c.writeConfig(version)
}

func (c *Cluster) checkPrograms() error {
	for _, name := range []string{"kube", "helm"} {
		if _, err := os.Stat(filepath.Join(c.Bin, name)); err != nil {
			return &Failure{Problem: err.Error(), Remedy: "build it: sh e2e/setup/tools.sh"}
		}
	}
	for _, name := range clusterPrograms {
		if _, err := lookProgram(name); err != nil {
			return err
		}
	}
	return nil
}

var clusterPrograms = []string{"containerd", "runc", "ctr", "busybox", "nsenter", "mount", "losetup", "blockdev", "ip", "mkfs.xfs", "/usr/lib/cni/bridge"}

// launch starts the supervisor in its namespaces and follows it until the cluster is ready.
func (c *Cluster) launch(ctx context.Context, version CgroupVersion, say func(string, ...any)) error {
	if err := makeCgroups(c.cgroup(), version); err != nil {
		return &Failure{Problem: "make cgroups: " + err.Error(),
			Remedy: "run on a machine or VM of its own: in a container the cgroup root is shared with others"}
	}
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reportRead.Close()
	gateRead, gateWrite, err := os.Pipe()
	if err != nil {
		reportWrite.Close()
		return err
	}
	defer gateWrite.Close()
	pid, err := c.forkSupervisor(reportWrite, gateRead)
	reportWrite.Close()
	gateRead.Close()
	if err != nil {
		return err
	}
	go reapSupervisor(pid)
	s, err := c.readState()
	if err != nil {
		return err
	}
	s.Supervisor = pid
	if s.SupervisorStart, err = processStart(pid); err != nil {
		return fmt.Errorf("the supervisor ended at once: %w", err)
	}
	if err := c.writeState(s); err != nil {
		return err
	}
	if _, err := gateWrite.Write([]byte{1}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { reportRead.Close() })
	defer stop()
	return c.follow(ctx, reportRead, say)
}

func (c *Cluster) forkSupervisor(report, gate *os.File) (int, error) {
	if err := os.MkdirAll(c.path("log"), 0o755); err != nil {
		return 0, err
	}
	log, err := os.OpenFile(c.LogPath("supervisor"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{supervisorProgram, c.Name, c.Dir, c.Bin}, &syscall.ProcAttr{
		Dir: "/", Env: childEnvironment(),
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd(), report.Fd(), gate.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true,
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID}})
	if err != nil {
		return 0, &Failure{Problem: "start the supervisor in namespaces of its own: " + err.Error(),
			Remedy: "the machine must allow network, mount and process namespaces (root, not an unprivileged container)"}
	}
	return pid, nil
}

// reapSupervisor waits so that a supervisor that ends while its starter lives is no zombie.
func reapSupervisor(pid int) {
	for {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

// follow shows the supervisor's progress until the cluster is ready or has failed.
func (c *Cluster) follow(ctx context.Context, report io.Reader, say func(string, ...any)) error {
	lines := bufio.NewScanner(report)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line progressLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("supervisor: %w", err)
		}
		switch {
		case line.Failure != nil:
			return line.Failure
		case line.Ready:
			return nil
		default:
			say("%s", line.Step)
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
	return &Failure{Problem: "the supervisor ended", Log: c.LogPath("supervisor")}
}
