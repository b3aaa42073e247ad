package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"collage/e2e/cluster"
)

const (
	space        = "bench"
	claimsPath   = "/api/v1/namespaces/" + space + "/persistentvolumeclaims"
	volumesPath  = "/api/v1/persistentvolumes"
	attachesPath = "/apis/storage.k8s.io/v1/volumeattachments"

	parallel = 32               // of the bench's own requests
	stalled  = 90 * time.Second // without any progress a phase has failed
)

// load is one candidate's set of objects: claims of its class, some of them attached.
type load struct {
	api      *api
	who      candidate
	name     string // begins the names of all objects
	claims   int
	attaches int
	progress func(format string, arguments ...any) // nil: nobody is told

	mu      sync.Mutex
	volumes []string // in the order of the claims
}

// finish is the end of a phase: a number of objects that reached their state.
type finish struct {
	mu      sync.Mutex
	missing map[string]bool
	done    chan struct{}
	last    time.Time // when the latest one came
}

func newFinish(names []string) *finish {
	f := &finish{missing: map[string]bool{}, done: make(chan struct{}), last: time.Now()}
	for _, name := range names {
		f.missing[name] = true
	}
	return f
}

func (f *finish) reached(name string) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.missing[name] {
		return
	}
	delete(f.missing, name)
	f.last = now
	if len(f.missing) == 0 {
		close(f.done)
	}
}

// time runs the requests and measures until the last object was seen in its state.
func (l *load) time(ctx context.Context, what string, names []string, collection string,
	seen func(f *finish, kind string, o object), request func(ctx context.Context, i int) error) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := newFinish(names)
	ended, err := l.api.watch(ctx, collection, func(kind string, o object) { seen(f, kind, o) })
	if err != nil {
		return 0, err
	}
	began := time.Now()
	requested := make(chan error, 1)
	go func() { requested <- each(ctx, len(names), request) }()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-f.done:
			return f.last.Sub(began), nil
		case err := <-requested:
			if err != nil {
				return 0, err
			}
			requested = nil
		case err := <-ended:
			return 0, err
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-tick.C:
			f.mu.Lock()
			missing, last := len(f.missing), f.last
			f.mu.Unlock()
			if l.progress != nil {
				l.progress("%s: %d of %d", what, len(names)-missing, len(names))
			}
			if time.Since(last) > stalled {
				return 0, fmt.Errorf("%s: nothing moved for %s; %d of %d are missing", what, stalled, missing, len(names))
			}
		}
	}
}

func (l *load) run(ctx context.Context, phase string) (time.Duration, error) {
	switch phase {
	case "provision":
		return l.provision(ctx)
	case "attach":
		return l.attach(ctx)
	case "detach":
		return l.detach(ctx)
	default:
		return l.delete(ctx)
	}
}

// count is the number of operations of a phase.
func (l *load) count(phase string) int {
	if phase == "attach" || phase == "detach" {
		return l.attaches
	}
	return l.claims
}

func (l *load) names(count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%04d", l.name, i)
	}
	return names
}

// provision: from the first claim's creation until the last is Bound.
func (l *load) provision(ctx context.Context) (time.Duration, error) {
	names := l.names(l.claims)
	index := map[string]int{}
	for i, name := range names {
		index[name] = i
	}
	l.volumes = make([]string, l.claims)
	return l.time(ctx, "claims Bound", names, claimsPath, func(f *finish, _ string, o object) {
		i, mine := index[o.Metadata.Name]
		if !mine || o.Status.Phase != "Bound" {
			return
		}
		l.mu.Lock()
		l.volumes[i] = o.Spec.VolumeName
		l.mu.Unlock()
		f.reached(o.Metadata.Name)
	}, func(ctx context.Context, i int) error {
		_, err := l.api.do(ctx, http.MethodPost, claimsPath, claimObject(names[i], l.who.class))
		return err
	})
}

// attach: from the first VolumeAttachment's creation until the last has status.attached.
func (l *load) attach(ctx context.Context) (time.Duration, error) {
	names := l.names(l.attaches)
	return l.time(ctx, "attached", names, attachesPath, func(f *finish, _ string, o object) {
		if o.Status.Attached {
			f.reached(o.Metadata.Name)
		}
	}, func(ctx context.Context, i int) error {
		node := cluster.Nodes[i%len(cluster.Nodes)].Name
		_, err := l.api.do(ctx, http.MethodPost, attachesPath, attachObject(names[i], l.who.driver, l.volumes[i], node))
		return err
	})
}

// detach: from the first VolumeAttachment's deletion until the last object is gone.
func (l *load) detach(ctx context.Context) (time.Duration, error) {
	names := l.names(l.attaches)
	return l.time(ctx, "detached", names, attachesPath, gone, func(ctx context.Context, i int) error {
		_, err := l.api.do(ctx, http.MethodDelete, attachesPath+"/"+names[i], nil)
		return err
	})
}

// delete: from the first claim's deletion until the last PersistentVolume is gone.
func (l *load) delete(ctx context.Context) (time.Duration, error) {
	names := l.names(l.claims)
	return l.time(ctx, "volumes deleted", l.volumes, volumesPath, gone, func(ctx context.Context, i int) error {
		_, err := l.api.do(ctx, http.MethodDelete, claimsPath+"/"+names[i], nil)
		return err
	})
}

func gone(f *finish, kind string, o object) {
	if kind == "DELETED" {
		f.reached(o.Metadata.Name)
	}
}

type fields = map[string]any

func claimObject(name, class string) fields {
	return fields{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": fields{"name": name},
		"spec": fields{"storageClassName": class, "accessModes": []string{"ReadWriteOnce"},
			"resources": fields{"requests": fields{"storage": "1Mi"}}}}
}

func attachObject(name, driver, volume, node string) fields {
	return fields{"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": fields{"name": name},
		"spec": fields{"attacher": driver, "nodeName": node, "source": fields{"persistentVolumeName": volume}}}
}

func classObject(name, provisioner string) fields {
	return fields{"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": fields{"name": name},
		"provisioner": provisioner, "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}
}

// exists takes "it is there already" for success.
func exists(err error) error {
	if err != nil && strings.Contains(err.Error(), "409 Conflict") {
		return nil
	}
	return err
}
