package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// Load imports a docker-archive (as of `docker save`; it may hold several images) into both nodes. A tag that was there
// now means the new image. An archive that is loaded and has not changed since is not loaded again.
func (c *Cluster) Load(ctx context.Context, archive string) error {
	path, err := filepath.Abs(archive)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	version := fmt.Sprintf("%d bytes of %s", info.Size(), info.ModTime().Format("2006-01-02T15:04:05.999999999"))
	note := c.path("loaded.json")
	loaded := map[string]string{}
	if content, err := os.ReadFile(note); err == nil {
		// An unreadable note means loading again.
		_ = json.Unmarshal(content, &loaded)
	}
	if c.supervisorPID() != 0 && loaded[path] == version {
		return nil
	}
	results := make([]error, len(Nodes))
	var all sync.WaitGroup
	for i, node := range Nodes {
		all.Go(func() { results[i] = c.loadInto(ctx, node.Name, path) })
	}
	all.Wait()
	for _, err := range results {
		if err != nil {
			return err
		}
	}
	loaded[path] = version
	content, err := json.Marshal(loaded)
	if err != nil {
		return err
	}
	return writeFile(note, content, 0o644)
}

func (c *Cluster) loadInto(ctx context.Context, node, archive string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	command, err := c.NodeCommand(ctx, node, "ctr", "--namespace", "k8s.io", "images", "import", "-")
	if err != nil {
		return err
	}
	command.Stdin = file
	_, err = runFor(command, "import "+archive+" into "+node)
	return err
}
