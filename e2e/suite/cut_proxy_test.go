package suite

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"collage/e2e/cluster"
)

// cutProxy stands between an operator and the API server, in the cluster's network. It numbers the operator's writes by
// their sort, and at one of them, when it is told to, cuts the wire: before the write is forwarded, or after it took effect
// and before its answer goes back. From then on nothing that the operator says reaches the server: it is to be killed.
type cutProxy struct {
	address   string
	authority []byte // PEM
	forward   *httputil.ReverseProxy

	mu    sync.Mutex
	seen  []string       // every write, in order
	count map[string]int // by sort
	armed *cut
	hit   chan struct{} // closed at the cut
}

// cut is the n-th write of a sort, from 1, counted from when it is armed.
type cut struct {
	sort   string
	n      int
	effect bool // cut after the effect
}

func (c cut) String() string {
	when := "before"
	if c.effect {
		when = "after"
	}
	return fmt.Sprintf("%s %s #%d", when, c.sort, c.n)
}

// startCutProxy listens until the test ends.
func startCutProxy(t *testing.T) *cutProxy {
	t.Helper()
	p := &cutProxy{}
	p.arm(nil)
	listener, err := k8s.Listen("127.0.0.1:0")
	must(t, err)
	p.address = listener.Addr().String()
	certificate, authority := selfSigned(t)
	p.authority = authority
	p.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: cluster.ControlPlaneAddress})
		},
		Transport:     apiTransport(t, false),
		FlushInterval: -1, // events of a watch go on as they come
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				t.Logf("proxy: %s %s: %v", r.Method, r.URL.Path, err)
			}
			panic(http.ErrAbortHandler)
		},
	}
	server := &http.Server{Handler: p, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	go server.ServeTLS(listener, "", "")
	t.Cleanup(func() { server.Close() })
	return p
}

// arm counts anew. Without a cut everything passes.
func (p *cutProxy) arm(c *cut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen, p.count, p.armed, p.hit = nil, map[string]int{}, c, make(chan struct{})
}

// wasHit is closed once the armed cut was made.
func (p *cutProxy) wasHit() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hit
}

// writes answers every write since arm, by its sort and number.
func (p *cutProxy) writes() []cut {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []cut
	count := map[string]int{}
	for _, sort := range p.seen {
		count[sort]++
		all = append(all, cut{sort: sort, n: count[sort]})
	}
	return all
}

// sortOf answers "" for what is not numbered: reads; the Lease, which is renewed by the clock; events, which nothing waits
// for.
func sortOf(r *http.Request) string {
	if r.Method == http.MethodGet || strings.Contains(r.URL.Path, "/leases") || strings.Contains(r.URL.Path, "/events") {
		return ""
	}
	// /api/v1/..., /apis/<group>/<version>/..., then [namespaces/<namespace>/]<plural>[/<name>[/<subresource>]].
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if parts[0] == "apis" {
		parts = parts[1:]
	}
	parts = parts[2:]
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	sort := r.Method + " " + parts[0]
	if len(parts) > 2 {
		sort += "/" + parts[2]
	}
	return sort
}

func (p *cutProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sort := sortOf(r)
	if sort == "" {
		p.forward.ServeHTTP(w, r)
		return
	}
	p.mu.Lock()
	hit := p.hit
	over, now := false, false
	select {
	case <-hit:
		over = true // as good as killed
	default:
		p.seen = append(p.seen, sort)
		p.count[sort]++
		now = p.armed != nil && p.armed.sort == sort && p.armed.n == p.count[sort]
	}
	effect := p.armed != nil && p.armed.effect
	if now && !effect {
		close(hit)
	}
	p.mu.Unlock()
	switch {
	case now && effect:
		p.forward.ServeHTTP(&lostAnswer{header: http.Header{}}, r)
		close(hit)
		fallthrough
	case over, now:
		io.Copy(io.Discard, r.Body) // else the end of the connection is not noticed
		<-r.Context().Done()        // the operator is killed now
		panic(http.ErrAbortHandler)
	default:
		p.forward.ServeHTTP(w, r)
	}
}

// lostAnswer takes an answer that nobody will read.
type lostAnswer struct{ header http.Header }

func (l *lostAnswer) Header() http.Header            { return l.header }
func (l *lostAnswer) Write(data []byte) (int, error) { return io.Discard.Write(data) }
func (l *lostAnswer) WriteHeader(int)                {}

// kubeconfig writes one for this proxy, with the rights of the operator's own ServiceAccount.
func (p *cutProxy) kubeconfig(t *testing.T) string {
	t.Helper()
	token := kubectl(t, "-n", system, "create", "token", "collage-operator", "--duration=2h")
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(path, []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://%s", certificate-authority-data: %s}}]
users: [{name: u, user: {token: %s}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, p.address, base64.StdEncoding.EncodeToString(p.authority), token)), 0o600))
	return path
}

func selfSigned(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cut proxy"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
