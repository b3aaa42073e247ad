package chart

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// root is the repository's folder, seen from this package's.
const root = "../.."

var repository = []string{"--set", "image.repository=registry.example.com/collage"}

// helmProgram is $HELM, else the one that the e2e tests build, else the one on the PATH.
func helmProgram(t *testing.T) string {
	t.Helper()
	if helm := os.Getenv("HELM"); helm != "" {
		return helm
	}
	if built, err := filepath.Abs(filepath.Join(root, "build/e2e/bin/helm")); err == nil {
		if _, err := os.Stat(built); err == nil {
			return built
		}
	}
	helm, err := exec.LookPath("helm")
	if err != nil {
		t.Fatal("no helm: run `make e2e` once, which builds it, or set HELM to its path")
	}
	return helm
}

// run answers the standard output, and all output with the error if helm fails.
func run(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	command := exec.Command(helmProgram(t), arguments...)
	var stdout, stderr strings.Builder
	command.Stdout, command.Stderr = &stdout, &stderr
	// No kubeconfig of whoever runs the tests.
	command.Env = append(os.Environ(), "KUBECONFIG="+os.DevNull)
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("helm %s: %w\n%s%s", strings.Join(arguments, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

func mustRun(t *testing.T, arguments ...string) string {
	t.Helper()
	output, err := run(t, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

func template(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	return run(t, append([]string{"template", "collage", filepath.Join(root, "helm/collage"), "--namespace", "collage-system"}, arguments...)...)
}

// object is a decoded YAML document; at() walks into it.
type object map[string]any

// at follows keys through maps and lists: at("spec", "containers", 0, "image"). nil where there is nothing.
func at(value any, path ...any) any {
	for _, step := range path {
		switch container := value.(type) {
		case object:
			value = container[step.(string)]
		case map[string]any:
			value = container[step.(string)]
		case []any:
			index := step.(int)
			if index >= len(container) {
				return nil
			}
			value = container[index]
		default:
			return nil
		}
	}
	return value
}

func list(value any, path ...any) []any {
	items, _ := at(value, path...).([]any)
	return items
}

func stringsOf(value any, path ...any) []string {
	var result []string
	for _, item := range list(value, path...) {
		result = append(result, fmt.Sprint(item))
	}
	return result
}

// decode turns YAML documents into objects. Go's standard library knows no YAML, helm does: a chart made for the purpose
// reads each document as a file and prints it as JSON.
func decode(t *testing.T, documents ...string) []object {
	t.Helper()
	chart := t.TempDir()
	write(t, filepath.Join(chart, "Chart.yaml"), "apiVersion: v2\nname: decode\nversion: 0.0.1\n")
	for index, document := range documents {
		write(t, filepath.Join(chart, "documents", fmt.Sprintf("%03d", index)), document)
	}
	write(t, filepath.Join(chart, "templates/all.yaml"), `{{- $all := list -}}
{{- range $path, $_ := .Files.Glob "documents/*" -}}{{- $all = append $all ($.Files.Get $path | fromYaml) -}}{{- end -}}
documents: {{ toJson $all }}
`)
	output := mustRun(t, "template", "decode", chart)
	_, text, found := strings.Cut(output, "documents: ")
	if !found {
		t.Fatalf("no documents in %s", output)
	}
	var all []object
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	for index, one := range all {
		if problem, ok := one["Error"]; ok && len(one) == 1 {
			t.Fatalf("%v in\n%s", problem, documents[index])
		}
	}
	return all
}

// split separates a stream of YAML documents and drops those that hold only comments.
func split(stream string) []string {
	var documents []string
	for _, document := range strings.Split("\n"+stream, "\n---") {
		for _, line := range strings.Split(document, "\n") {
			if line != "" && !strings.HasPrefix(line, "#") {
				documents = append(documents, document)
				break
			}
		}
	}
	return documents
}

// rendered are the chart's objects by "Kind/name", without those of `helm test`.
func rendered(t *testing.T, arguments ...string) map[string]object {
	t.Helper()
	stream, err := template(t, append(append([]string{"--skip-tests"}, repository...), arguments...)...)
	if err != nil {
		t.Fatal(err)
	}
	return byName(t, decode(t, split(stream)...))
}

func byName(t *testing.T, objects []object) map[string]object {
	t.Helper()
	result := map[string]object{}
	for _, one := range objects {
		key := fmt.Sprintf("%v/%v", one["kind"], at(one, "metadata", "name"))
		if namespace := at(one, "metadata", "namespace"); namespace != nil && namespace != "collage-system" {
			key = fmt.Sprintf("%v/%v/%v", one["kind"], namespace, at(one, "metadata", "name"))
		}
		if _, twice := result[key]; twice {
			t.Fatalf("%s is rendered twice", key)
		}
		result[key] = one
	}
	return result
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
