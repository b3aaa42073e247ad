package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"collage/e2e/cluster"
)

// api speaks JSON to the API server as the administrator, in the cluster's network. It creates and deletes what both
// candidates work on and watches it: the same code, the same connections and the same parallelism for both.
type api struct {
	writes  *http.Client
	watches *http.Client // of its own, so that events never wait behind requests
	server  string
}

func newAPI(c *cluster.Cluster) (*api, error) {
	authority, err := os.ReadFile(filepath.Join(c.Dir, "pki", "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	pair, err := tls.LoadX509KeyPair(filepath.Join(c.Dir, "pki", "admin.crt"), filepath.Join(c.Dir, "pki", "admin.key"))
	if err != nil {
		return nil, err
	}
	client := func() *http.Client {
		return &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, MaxIdleConnsPerHost: parallel,
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}}
	}
	return &api{writes: client(), watches: client(), server: "https://" + cluster.ControlPlaneAddress}, nil
}

func (a *api) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	return a.send(ctx, method, path, "application/json", body)
}

// patch merges the fields into the object.
func (a *api) patch(ctx context.Context, path string, body any) error {
	_, err := a.send(ctx, http.MethodPatch, path, "application/merge-patch+json", body)
	return err
}

func (a *api) send(ctx context.Context, method, path, contentType string, body any) ([]byte, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(encoded)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, a.server+path, content)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", contentType)
	response, err := a.writes.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if response.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %s: %.300s", method, path, response.Status, answer)
	}
	return answer, nil
}

// each runs the calls with the bench's parallelism and returns the first error.
func each(ctx context.Context, count int, call func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for i := range next {
				if err := call(ctx, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for i := 0; i < count && ctx.Err() == nil; i++ {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	workers.Wait()
	return context.Cause(ctx)
}

// object is what the bench looks at.
type object struct {
	Metadata struct {
		Name            string
		UID             string
		ResourceVersion string
	}
	Spec   struct{ VolumeName string }
	Status struct {
		Phase    string
		Attached bool
	}
}

// watch tells of every change of a collection from now on until ctx ends. The server ends a watch whose reader falls
// behind on a busy machine: it is resumed where it was, so nothing is missed. What cannot be resumed is an error.
func (a *api) watch(ctx context.Context, collection string, changed func(kind string, o object)) (<-chan error, error) {
	list, err := a.do(ctx, http.MethodGet, collection+"?limit=1", nil)
	if err != nil {
		return nil, err
	}
	var now object
	if err := json.Unmarshal(list, &now); err != nil {
		return nil, err
	}
	version := now.Metadata.ResourceVersion
	stream, err := a.openWatch(ctx, collection, version)
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		for err == nil {
			version, err = follow(stream, version, changed)
			stream.Close()
			if err == nil {
				stream, err = a.openWatch(ctx, collection, version)
			}
		}
		ended <- fmt.Errorf("the watch of %s: %w", collection, err)
	}()
	return ended, nil
}

func (a *api) openWatch(ctx context.Context, collection, version string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		a.server+collection+"?watch=true&allowWatchBookmarks=true&timeoutSeconds=3600&resourceVersion="+version, nil)
	if err != nil {
		return nil, err
	}
	response, err := a.watches.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, errors.New(response.Status)
	}
	return response.Body, nil
}

// follow reads events until the stream ends, and returns the version to go on from.
func follow(stream io.Reader, version string, changed func(kind string, o object)) (string, error) {
	lines := bufio.NewReaderSize(stream, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return version, nil
		}
		var event struct {
			Type   string
			Object object
		}
		if err := json.Unmarshal(line, &event); err != nil || event.Type == "ERROR" {
			return "", fmt.Errorf("it says %.300s", line)
		}
		version = event.Object.Metadata.ResourceVersion
		if event.Type != "BOOKMARK" {
			changed(event.Type, event.Object)
		}
	}
}
