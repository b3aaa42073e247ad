package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// writeBaseImages writes a docker-archive with the pause image and a busybox image that pods of tests use. Both are one
// layer made of Debian's static busybox.
func writeBaseImages(path string) error {
	layer, err := busyboxLayer()
	if err != nil {
		return err
	}
	return writeImageArchive(path, layer, map[string][]string{
		pauseImage:   {"/bin/busybox", "sleep", "2147483647"},
		BusyboxImage: {"/bin/sh"},
	})
}

func busyboxLayer() ([]byte, error) {
	program, err := lookProgram("busybox")
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", program, err)
	}
	var buffer bytes.Buffer
	out := tar.NewWriter(&buffer)
	for _, folder := range []string{"bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"} {
		mode := int64(0o755)
		if folder == "tmp" {
			mode = 0o1777
		}
		if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: folder + "/", Mode: mode}); err != nil {
			return nil, err
		}
	}
	files := map[string][]byte{
		"bin/busybox": content,
		"etc/passwd":  []byte("root:x:0:0:root:/root:/bin/sh\n"),
		"etc/group":   []byte("root:x:0:\n"),
	}
	for name, content := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}
		if err := out.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := out.Write(content); err != nil {
			return nil, err
		}
	}
	for _, applet := range strings.Fields(string(applets)) {
		if applet == "busybox" {
			continue
		}
		header := &tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}
		if err := out.WriteHeader(header); err != nil {
			return nil, err
		}
	}
	return buffer.Bytes(), out.Close()
}

// writeImageArchive writes images that share one layer, each a reference and its command, as `docker load` takes them.
func writeImageArchive(path string, layer []byte, images map[string][]string) error {
	type manifestEntry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	files := map[string][]byte{"layer.tar": layer}
	var manifest []manifestEntry
	for reference, command := range images {
		config, err := json.Marshal(map[string]any{
			"architecture": runtime.GOARCH,
			"os":           "linux",
			"config":       map[string]any{"Cmd": command, "Env": []string{"PATH=/bin"}},
			"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
		})
		if err != nil {
			return err
		}
		name := digest(config) + ".json"
		files[name] = config
		manifest = append(manifest, manifestEntry{Config: name, RepoTags: []string{reference}, Layers: []string{"layer.tar"}})
	}
	var err error
	if files["manifest.json"], err = json.Marshal(manifest); err != nil {
		return err
	}
	var buffer bytes.Buffer
	out := tar.NewWriter(&buffer)
	for name, content := range files {
		if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			return err
		}
		if _, err := out.Write(content); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	return writeFile(path, buffer.Bytes(), 0o644)
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
