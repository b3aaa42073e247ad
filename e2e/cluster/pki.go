package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority signs the certificates of one cluster. Its key exists in memory only.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pem         []byte
}

type identity struct {
	commonName   string
	organization string
	dnsNames     []string
	addresses    []string
	usage        x509.ExtKeyUsage
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "collage-test-cluster"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(1, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{key: key, certificate: certificate, pem: encodePEM("CERTIFICATE", der)}, nil
}

// issue returns a certificate and its key, both in PEM.
func (a *authority) issue(who identity) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: who.commonName},
		NotBefore:    a.certificate.NotBefore,
		NotAfter:     a.certificate.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{who.usage},
		DNSNames:     who.dnsNames,
	}
	if who.organization != "" {
		template.Subject.Organization = []string{who.organization}
	}
	for _, address := range who.addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(address))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err := encodeKey(private)
	return encodePEM("CERTIFICATE", der), keyPEM, err
}

// writePKI makes every key, certificate and kubeconfig of the cluster.
func (c *Cluster) writePKI() error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	files := map[string][]byte{"pki/ca.crt": ca.pem}
	pair := func(name string, who identity) error {
		certificate, key, err := ca.issue(who)
		files["pki/"+name+".crt"], files["pki/"+name+".key"] = certificate, key
		return err
	}
	kubeconfig := func(name string, who identity) error {
		who.usage = x509.ExtKeyUsageClientAuth
		certificate, key, err := ca.issue(who)
		files[name+".kubeconfig"] = renderKubeconfig(c.Name, ca.pem, certificate, key)
		if name == "admin" {
			files["pki/admin.crt"], files["pki/admin.key"] = certificate, key
		}
		return err
	}
	steps := []error{
		pair("apiserver", identity{commonName: "kube-apiserver", usage: x509.ExtKeyUsageServerAuth,
			dnsNames:  []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc"},
			addresses: []string{ServiceAddress, ControlPlaneAddress, "127.0.0.1"}}),
		pair("apiserver-kubelet", identity{commonName: "apiserver-kubelet", organization: "system:masters",
			usage: x509.ExtKeyUsageClientAuth}),
		kubeconfig("admin", identity{commonName: "admin", organization: "system:masters"}),
		kubeconfig("kube-controller-manager", identity{commonName: "system:kube-controller-manager"}),
		kubeconfig("kube-scheduler", identity{commonName: "system:kube-scheduler"}),
	}
	for _, node := range Nodes {
		steps = append(steps,
			kubeconfig(node.Name+"/node", identity{commonName: "system:node:" + node.Name, organization: "system:nodes"}),
			pair(node.Name, identity{commonName: node.Name, usage: x509.ExtKeyUsageServerAuth,
				dnsNames: []string{node.Name}, addresses: []string{node.Address}}))
	}
	for _, err := range steps {
		if err != nil {
			return fmt.Errorf("make certificates: %w", err)
		}
	}
	if err := addServiceAccountKeys(files); err != nil {
		return err
	}
	for name, content := range files {
		if err := writeFile(c.path(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func addServiceAccountKeys(files map[string][]byte) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	files["pki/sa.pub"] = encodePEM("PUBLIC KEY", public)
	files["pki/sa.key"], err = encodeKey(key)
	return err
}

func renderKubeconfig(name string, ca, certificate, key []byte) []byte {
	encode := base64.StdEncoding.EncodeToString
	return []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: collage-%[1]s
clusters:
- name: collage-%[1]s
  cluster:
    server: https://%[2]s:443
    certificate-authority-data: %[3]s
users:
- name: collage-%[1]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
contexts:
- name: collage-%[1]s
  context:
    cluster: collage-%[1]s
    user: collage-%[1]s
`, name, ControlPlaneAddress, encode(ca), encode(certificate), encode(key)))
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encodePEM("EC PRIVATE KEY", der), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func writeFile(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, mode)
}
