package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// state is what must be known to remove a cluster after a crash. It is written before the thing that it describes is
// made: a crash leaves a note of what may be there, never a thing without a note. The file also marks the folder as a
// cluster's own, which is what allows Down to remove it.
type state struct {
	Name            string `json:"name"`
	BootID          string `json:"bootID"`
	Supervisor      int    `json:"supervisor"` // process id on the host, 0 before it is started
	SupervisorStart string `json:"supervisorStart"`
	// Cgroup v2 controllers that were not enabled at the root before.
	InactiveControllers []string `json:"inactiveControllers,omitempty"`
}

const stateFile = "cluster.json"

func (c *Cluster) readState() (*state, error) {
	content, err := os.ReadFile(c.path(stateFile))
	if err != nil {
		return nil, err
	}
	s := &state{}
	if err := json.Unmarshal(content, s); err != nil {
		return nil, fmt.Errorf("%s: %w", c.path(stateFile), err)
	}
	return s, nil
}

func (c *Cluster) writeState(s *state) error {
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(c.path(stateFile+".new"), append(content, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(c.path(stateFile+".new"), c.path(stateFile))
}

// supervisorPID returns the host's id of the live supervisor, or 0. The start time and the boot make sure that it is
// that process and no later one with the same id.
func (c *Cluster) supervisorPID() int {
	s, err := c.readState()
	if err != nil || s.Supervisor == 0 || s.BootID != bootID() {
		return 0
	}
	if start, err := processStart(s.Supervisor); err != nil || start != s.SupervisorStart {
		return 0
	}
	return s.Supervisor
}

func bootID() string {
	content, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(content))
}

// processStart returns the start time of a process in clock ticks since boot. A zombie counts as gone.
func processStart(pid int) (string, error) {
	content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	// The name, in parentheses, may hold anything; the fields after it are numbered from 3 (proc(5)).
	last := strings.LastIndex(string(content), ") ")
	if last < 0 {
		return "", fmt.Errorf("process %d: unexpected stat", pid)
	}
	fields := strings.Fields(string(content)[last+2:])
	if len(fields) < 20 {
		return "", fmt.Errorf("process %d: unexpected stat", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", fs.ErrNotExist
	}
	return fields[19], nil
}

// lock serialises Up and Down of one cluster between processes. It lies beside the folder, which Down removes.
func (c *Cluster) lock() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(c.Dir), 0o755); err != nil {
		return nil, err
	}
	path := c.Dir + ".lock"
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &Failure{Problem: "another process is starting or removing cluster " + c.Name,
				Remedy: "wait for it to end, or end it, then try again"}
		}
		return nil, err
	}
	return func() { file.Close() }, nil
}

// checkOwnFolder refuses a folder that holds anything but a cluster.
func (c *Cluster) checkOwnFolder() error {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && len(entries) == 0) {
		return nil
	}
	if err != nil {
		return err
	}
	s, err := c.readState()
	if err != nil {
		return &Failure{Problem: fmt.Sprintf("%s is not empty and holds no cluster (%v)", c.Dir, err),
			Remedy: "choose another folder with --dir, or empty this one"}
	}
	if s.Name != c.Name {
		return &Failure{Problem: fmt.Sprintf("%s belongs to cluster %q, not %q", c.Dir, s.Name, c.Name),
			Remedy: "give the matching --name, or another --dir"}
	}
	return nil
}

// tailOf returns the last lines of a file, indented; empty when there is none.
func tailOf(path string, lines int) string {
	if path == "" {
		return ""
	}
	content, err := os.ReadFile(path)
	if err != nil || len(content) == 0 {
		return ""
	}
	const limit = 16 << 10
	if len(content) > limit {
		content = content[len(content)-limit:]
	}
	all := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "    " + strings.Join(all, "\n    ")
}
