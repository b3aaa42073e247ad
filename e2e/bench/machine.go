package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// describeMachine tells where and of what the results are. What cannot be found out is left out.
func describeMachine(ctx context.Context, bin string, a *api) map[string]any {
	facts := map[string]any{"date": time.Now().UTC().Format(time.RFC3339), "machine_cores": float64(runtime.NumCPU()),
		"machine_architecture": runtime.GOARCH}
	if content, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		facts["machine_kernel"] = strings.TrimSpace(string(content))
	}
	if kib, ok := amount("/proc/meminfo", "MemTotal:"); ok {
		facts["machine_memory_mib"] = round(kib / 1024)
	}
	if content, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(content)) {
			if name, model, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
				facts["machine_processor"] = strings.TrimSpace(model)
				break
			}
		}
	}
	// Above 1 in a run of its own it was the machine's other work that was measured, too.
	if content, err := os.ReadFile("/proc/loadavg"); err == nil {
		facts["machine_load_at_start"] = parsed(strings.Fields(string(content))[0])
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(bin, "collage"), "version").Output(); err == nil {
		first, _, _ := strings.Cut(string(out), "\n")
		facts["version_collage"] = strings.TrimPrefix(first, "collage ")
	}
	if out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output(); err == nil {
		facts["version_commit"] = strings.TrimSpace(string(out))
	}
	if text, err := a.do(ctx, http.MethodGet, "/version", nil); err == nil {
		var version struct{ GitVersion string }
		if json.Unmarshal(text, &version) == nil {
			facts["version_kubernetes"] = version.GitVersion
		}
	}
	return facts
}
