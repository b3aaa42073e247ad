package suite

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"
)

// sanitized says that the programs in the images were built with sanitizers (make asan-e2e, make tsan-e2e): they are
// slower, need more memory, and what they report fails the run.
var sanitized = os.Getenv("SANITIZED")

var report = regexp.MustCompile(`ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|: runtime error: `)

// noReports fails a test for what a program reported that the test ran by itself, outside a pod.
func noReports(t *testing.T, said string) {
	t.Helper()
	if at := report.FindStringIndex(said); at != nil {
		t.Errorf("a sanitizer reported:\n%s", said[at[0]:min(len(said), at[0]+6000)])
	}
}

// reports follows the logs of every container of Collage, from its first line to its last, for as long as the suite
// runs: pods that a test ends take their logs with them.
type reports struct {
	folder string
	stop   context.CancelFunc
	all    sync.WaitGroup

	mutex sync.Mutex
	found []string
}

func followReports(folder string) (*reports, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	follow, stop := context.WithCancel(ctx)
	r := &reports{folder: folder, stop: stop}
	r.all.Add(1)
	go r.watch(follow)
	return r, nil
}

// watch finds containers as they come. Those of one pod differ by how often it was started.
func (r *reports) watch(follow context.Context) {
	defer r.all.Done()
	seen := map[string]bool{}
	for follow.Err() == nil {
		var pods struct {
			Items []struct {
				Metadata struct{ Name, UID string }
				Status   struct {
					ContainerStatuses []struct {
						Name         string
						RestartCount int
						State        struct{ Waiting *struct{ Reason string } }
					}
				}
			}
		}
		if err := k8s.Get(follow, &pods, "pods", "-n", system); err == nil {
			for _, pod := range pods.Items {
				for _, container := range pod.Status.ContainerStatuses {
					key := fmt.Sprintf("%s-%s-%d", pod.Metadata.Name, container.Name, container.RestartCount)
					if container.State.Waiting != nil || seen[key] {
						continue
					}
					seen[key] = true
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
	file, err := os.Create(filepath.Join(r.folder, key+".log"))
	if err != nil {
		return
	}
	defer file.Close()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fmt.Fprintln(file, lines.Text())
		if report.MatchString(lines.Text()) {
			r.mutex.Lock()
			r.found = append(r.found, key+": "+lines.Text())
			r.mutex.Unlock()
		}
	}
}

// end waits for the last lines of what still runs and returns what was reported.
func (r *reports) end() []string {
	time.Sleep(2 * time.Second)
	r.stop()
	r.all.Wait()
	return r.found
}
