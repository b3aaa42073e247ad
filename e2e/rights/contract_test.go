package rights

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"collage/e2e/cluster"
)

// testContract holds what the unit tests' API server says against this real one: the same tests run on both.
func testContract(t *testing.T, c *cluster.Cluster) {
	root, err := cluster.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(root, "build/release/bin/unit_kube")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: build it first (ninja -C build/release unit_kube)", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	command, err := c.Command(ctx, program, "--gtest_filter=Servers/ApiContract.*/real", "--gtest_color=no")
	if err != nil {
		t.Fatal(err)
	}
	command.Env = append(command.Environ(), "COLLAGE_TEST_KUBECONFIG="+c.Kubeconfig())
	out, ended := command.CombinedOutput()
	ran := regexp.MustCompile(`(?m)^\[ RUN      \] Servers/ApiContract\.(\w+)/real\n`).FindAllStringSubmatch(string(out), -1)
	if len(ran) < 10 {
		t.Fatalf("only %d tests ran (%v):\n%s", len(ran), ended, out)
	}
	for _, test := range ran {
		t.Run(test[1], func(t *testing.T) {
			_, said, _ := strings.Cut(string(out), test[0])
			said, _, _ = strings.Cut(said, "[ RUN      ]")
			if !strings.Contains(said, "[       OK ]") {
				t.Error(said)
			}
		})
	}
	if ended != nil && !t.Failed() {
		t.Errorf("%v:\n%s", ended, out)
	}
}
