package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

type mountEntry struct {
	mountPoint, fsType, superOptions string
}

// readMounts parses /proc/self/mountinfo (proc(5)).
func readMounts() ([]mountEntry, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(content))
}

func parseMounts(content string) ([]mountEntry, error) {
	var entries []mountEntry
	for line := range strings.Lines(content) {
		before, after, found := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !found || len(left) < 6 || len(right) < 2 {
			return nil, fmt.Errorf("mountinfo: unexpected line %q", line)
		}
		entry := mountEntry{mountPoint: unescapeOctal(left[4]), fsType: right[0]}
		if len(right) > 2 {
			entry.superOptions = right[2]
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// unescapeOctal undoes mountinfo's \040 for a space and the like.
func unescapeOctal(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if code, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// mountsBelow lists the mount points in folder and below, as the calling process sees them.
func mountsBelow(folder string) ([]string, error) {
	entries, err := readMounts()
	if err != nil {
		return nil, err
	}
	var below []string
	for _, entry := range entries {
		if entry.mountPoint == folder || strings.HasPrefix(entry.mountPoint, folder+"/") {
			below = append(below, entry.mountPoint)
		}
	}
	return below, nil
}
