package suite

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"collage/e2e/sanitizers"
)

// sanitized says that the programs in the images were built with sanitizers (make asan-e2e, make tsan-e2e): they are
// slower, need more memory, and what they report fails the run.
var sanitized = os.Getenv("SANITIZED")

// noReports fails a test for what a program reported that the test ran by itself, outside a pod.
func noReports(t *testing.T, said string) {
	t.Helper()
	if found := sanitizers.Find(said); found != "" {
		t.Errorf("a sanitizer reported:\n%s", found)
	}
}

// reports follows the logs of every container of Collage, from its first line to its last, for as long as the suite
// runs: pods that a test ends take their logs with them.
type reports struct {
	folder string
	stop   context.CancelFunc
	all    sync.WaitGroup

	mutex    sync.Mutex
	followed map[string]bool // containers; false when their logs broke off
	found    []string
}

func followReports(folder string) (*reports, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	follow, stop := context.WithCancel(ctx)
	r := &reports{folder: folder, stop: stop, followed: map[string]bool{}}
	r.all.Add(1)
	go r.watch(follow)
	return r, nil
}

// watch finds containers as they come. Those of one pod differ by how often it was started. Tests end API servers and
// kubelets, and with them what follows a log: what runs on is followed again, from its first line.
func (r *reports) watch(follow context.Context) {
	defer r.all.Done()
	for follow.Err() == nil {
		var pods struct {
			Items []struct {
				Metadata struct{ Name, UID string }
				Status   struct {
					ContainerStatuses []struct {
						Name         string
						RestartCount int
						State        struct{ Waiting, Running *struct{} }
					}
				}
			}
		}
		if err := k8s.Get(follow, &pods, "pods", "-n", system); err == nil {
			for _, pod := range pods.Items {
				for _, container := range pod.Status.ContainerStatuses {
					key := fmt.Sprintf("%s-%s-%d", pod.Metadata.Name, container.Name, container.RestartCount)
					r.mutex.Lock()
					now, ever := r.followed[key]
					begin := container.State.Waiting == nil && !ever || container.State.Running != nil && !now
					if begin {
						r.followed[key] = true
					}
					r.mutex.Unlock()
					if !begin {
						continue
					}
					r.all.Add(1)
					go r.follow(follow, key, pod.Metadata.Name, container.Name)
				}
			}
		}
		select {
		case <-follow.Done():
		case <-time.After(time.Second):
		}
	}
}

func (r *reports) follow(follow context.Context, key, pod, container string) {
	defer r.all.Done()
	defer func() {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		r.followed[key] = false
	}()
	command, err := k8s.Command(follow, "kubectl", "logs", "-n", system, "--follow", pod, "-c", container)
	if err != nil {
		return
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return
	}
	if err := command.Start(); err != nil {
		return
	}
	defer command.Wait()
	file, err := os.OpenFile(filepath.Join(r.folder, key+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return
	}
	defer file.Close()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	var reader sanitizers.Reader
	for lines.Scan() {
		fmt.Fprintln(file, lines.Text())
		r.note(key, reader.Line(lines.Text()))
	}
	r.note(key, reader.End())
}

func (r *reports) note(key, report string) {
	if report == "" {
		return
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if found := key + ": " + report; !slices.Contains(r.found, found) {
		r.found = append(r.found, found)
	}
}

// end waits for the last lines of what still runs and returns what was reported.
func (r *reports) end() []string {
	time.Sleep(2 * time.Second)
	r.stop()
	r.all.Wait()
	return r.found
}
