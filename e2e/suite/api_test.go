package suite

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"collage/e2e/cluster"
)

// apiTransport reaches the API server in the cluster's network, as the administrator when told so.
func apiTransport(t *testing.T, administrator bool) *http.Transport {
	t.Helper()
	authority, err := os.ReadFile(filepath.Join(k8s.Dir, "pki", "ca.crt"))
	must(t, err)
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(authority)
	if administrator {
		pair, err := tls.LoadX509KeyPair(filepath.Join(k8s.Dir, "pki", "admin.crt"), filepath.Join(k8s.Dir, "pki", "admin.key"))
		must(t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Transport{DialContext: k8s.Dial, TLSClientConfig: config, MaxIdleConnsPerHost: 64}
}

// api is the administrator's short way to the API server: no program is started for a call.
type api struct{ http *http.Client }

func newAPI(t *testing.T) *api {
	return &api{&http.Client{Transport: apiTransport(t, true), Timeout: 30 * time.Second}}
}

// do answers the status and the body.
func (a *api) do(t *testing.T, method, path, body string) (int, []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, method, "https://"+cluster.ControlPlaneAddress+path, bytes.NewReader([]byte(body)))
	must(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := a.http.Do(request)
	must(t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	must(t, err)
	return response.StatusCode, answer
}

// get decodes an object; false when there is none.
func (a *api) get(t *testing.T, path string, into any) bool {
	t.Helper()
	status, body := a.do(t, http.MethodGet, path, "")
	if status == http.StatusNotFound {
		return false
	}
	if status != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, status, body)
	}
	must(t, json.Unmarshal(body, into))
	return true
}

func (a *api) create(t *testing.T, path, object string) {
	t.Helper()
	if status, body := a.do(t, http.MethodPost, path, object); status != http.StatusCreated && status != http.StatusConflict {
		t.Fatalf("POST %s: %d %s", path, status, body)
	}
}

func (a *api) delete(t *testing.T, path string) {
	t.Helper()
	if status, body := a.do(t, http.MethodDelete, path, ""); status != http.StatusOK && status != http.StatusAccepted && status != http.StatusNotFound {
		t.Fatalf("DELETE %s: %d %s", path, status, body)
	}
}

// claimObject is a claim of the class share-now.
func claimObject(name string) string {
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": %q},
		"spec": {"storageClassName": "share-now", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}`, name)
}
