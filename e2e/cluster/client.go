package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// apiClient asks the API server the few questions that booting needs. It works in the cluster's network namespace.
type apiClient struct{ http *http.Client }

func newAPIClient(c *Cluster) (*apiClient, error) {
	authorityPEM, err := os.ReadFile(c.path("pki/ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authorityPEM)
	certificate, err := tls.LoadX509KeyPair(c.path("pki/admin.crt"), c.path("pki/admin.key"))
	if err != nil {
		return nil, err
	}
	return &apiClient{&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}}}}, nil
}

func (a *apiClient) get(path string, into any) error {
	response, err := a.http.Get("https://" + ControlPlaneAddress + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

func (a *apiClient) ready() error { return a.get("/readyz", nil) }

func (a *apiClient) serviceAccount() error {
	return a.get("/api/v1/namespaces/default/serviceaccounts/default", nil)
}

// nodesReady holds when each node is Ready and its startup taint is gone.
func (a *apiClient) nodesReady() error {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ Taints []struct{ Key string } }
			Status   struct {
				Conditions []struct{ Type, Status, Message string }
			}
		}
	}
	if err := a.get("/api/v1/nodes", &list); err != nil {
		return err
	}
	if len(list.Items) < len(Nodes) {
		return fmt.Errorf("%d of %d nodes are registered", len(list.Items), len(Nodes))
	}
	for _, node := range list.Items {
		problem := errors.New(node.Metadata.Name + " has not reported")
		for _, condition := range node.Status.Conditions {
			if condition.Type == "Ready" {
				problem = fmt.Errorf("%s: %s", node.Metadata.Name, condition.Message)
				if condition.Status == "True" {
					problem = nil
				}
			}
		}
		if problem != nil {
			return problem
		}
		for _, taint := range node.Spec.Taints {
			if taint.Key == "node.kubernetes.io/not-ready" {
				return fmt.Errorf("%s has taint %s", node.Metadata.Name, taint.Key)
			}
		}
	}
	return nil
}
