package chart

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	linkPattern    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fencePattern   = regexp.MustCompile("(?ms)^\\s*```.*?^\\s*```")
	anchorPattern  = regexp.MustCompile(`[^a-z0-9 _-]`)
	headingPattern = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchors are the names by which GitHub and others link to a document's headings.
func anchors(text string) map[string]bool {
	result := map[string]bool{}
	for _, heading := range headingPattern.FindAllStringSubmatch(fencePattern.ReplaceAllString(text, ""), -1) {
		result[strings.ReplaceAll(anchorPattern.ReplaceAllString(strings.ToLower(heading[1]), ""), " ", "-")] = true
	}
	return result
}

func TestDocumentsLinkToWhatExists(t *testing.T) {
	var documents []string
	for _, pattern := range []string{"*.md", "docs/*.md", "helm/collage/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, found...)
	}
	if len(documents) < 9 {
		t.Fatalf("only %v", documents)
	}
	for _, document := range documents {
		text := fencePattern.ReplaceAllString(read(t, document), "")
		for _, link := range linkPattern.FindAllStringSubmatch(text, -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(link[1], "#")
			target := document
			if path != "" {
				target = filepath.Join(filepath.Dir(document), path)
			}
			info, err := os.Stat(target)
			if err != nil {
				t.Errorf("%s links to %s: %v", document, link[1], err)
				continue
			}
			if anchor != "" && !info.IsDir() && !anchors(read(t, target))[anchor] {
				t.Errorf("%s links to %s: there is no such heading", document, link[1])
			}
		}
	}
}

// Every value that install.md names is a value of the chart.
func TestInstallNamesValuesThatExist(t *testing.T) {
	values := decode(t, read(t, filepath.Join(root, "helm/collage/values.yaml")))[0]
	rows := regexp.MustCompile("(?m)^\\| `([a-zA-Z.]+)` \\|").FindAllStringSubmatch(read(t, filepath.Join(root, "docs/install.md")), -1)
	if len(rows) < 10 {
		t.Fatalf("only %d rows", len(rows))
	}
	for _, row := range rows {
		if row[1] == "image.repository" {
			continue // has no default
		}
		var path []any
		for _, step := range strings.Split(row[1], ".") {
			path = append(path, step)
		}
		if at(values, path...) == nil {
			t.Errorf("install.md names %s, which values.yaml does not have", row[1])
		}
	}
}

// security.md tells of every policy of the chart, and of no other.
func TestSecurityNamesThePolicies(t *testing.T) {
	told := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (operator|agent)").FindAllStringSubmatch(read(t, filepath.Join(root, "docs/security.md")), -1) {
		told["ValidatingAdmissionPolicy/collage-"+strings.Replace(row[2], "agent", "node", 1)+"-"+row[1]] = true
	}
	for name := range rendered(t, "--set", "rbac.deletePods=true") {
		if strings.HasPrefix(name, "ValidatingAdmissionPolicy/") && !told[name] {
			t.Errorf("security.md does not tell of %s", name)
		}
		delete(told, name)
	}
	for name := range told {
		t.Errorf("security.md tells of %s, which does not exist", name)
	}
}

// Alerts are built on these names: one that changes in the program alone would never fire again.
func TestDocumentedMetricsAreInTheProgram(t *testing.T) {
	program := strings.Builder{}
	for _, folder := range []string{"base", "drivers", "operator"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry os.DirEntry, err error) error {
			if err == nil && (strings.HasSuffix(path, ".cpp") || strings.HasSuffix(path, ".h")) {
				program.WriteString(read(t, path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, section, found := strings.Cut(read(t, filepath.Join(root, "docs/troubleshooting.md")), "## Metrics")
	if !found {
		t.Fatal("docs/troubleshooting.md has no section on metrics")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	names := 0
	for _, row := range regexp.MustCompile(`(?m)^\| (`+"`"+`[^|]*)\|`).FindAllStringSubmatch(section, -1) {
		for _, name := range regexp.MustCompile("`([a-z_*]+)`").FindAllStringSubmatch(row[1], -1) {
			// "_total" ends the name before it in another way, "*" stands for several words.
			literal := `"` + strings.ReplaceAll(name[1], "*", "[a-z_]+") + `"`
			if strings.HasPrefix(name[1], "_") {
				literal = `"[a-z_]+` + name[1] + `"`
			}
			if !regexp.MustCompile(literal).MatchString(program.String()) {
				t.Errorf("the program has no metric %s", name[1])
			}
			names++
		}
	}
	if names < 20 {
		t.Errorf("only %d names were found", names)
	}
}
