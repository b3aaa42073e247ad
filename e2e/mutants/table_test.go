package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A guard that moved must be found again, or its mutant tests nothing.
func TestEveryMutantStillFits(t *testing.T) {
	root := filepath.Join("..", "..")
	mutants, err := readTable(filepath.Join(root, "unit", "mutants"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range mutants {
		if names[m.name] {
			t.Errorf("%s: there is a mutant %q already", m.where, m.name)
		}
		names[m.name] = true
		source, err := os.ReadFile(filepath.Join(root, m.file))
		if err != nil {
			t.Error(err)
			continue
		}
		changed, err := m.mutate(string(source))
		if err != nil {
			t.Error(err)
		} else if changed == string(source) {
			t.Errorf("%s: changes nothing", m.where)
		}
	}
	if len(mutants) < 30 {
		t.Errorf("only %d mutants", len(mutants))
	}
}

func TestATextIsFoundHoweverItIsWrapped(t *testing.T) {
	m := mutant{file: "a.cpp", text: []string{" if (held(x,", "  y)) return;"}, replacement: []string{"// gone"}}
	for _, source := range []string{"{\n  if (held(x, y)) return;\n}", "{ if (held(x,\n          y)) return;\n}"} {
		changed, err := m.mutate(source)
		if err != nil || strings.Contains(changed, "held") || !strings.Contains(changed, "// gone\n}") {
			t.Errorf("%q became %q (%v)", source, changed, err)
		}
	}
}

func TestATextThatIsThereTwiceOrNotIsRefused(t *testing.T) {
	m := mutant{file: "a.cpp", text: []string{"return;"}}
	for _, source := range []string{"return; return;", "nothing"} {
		if _, err := m.mutate(source); err == nil {
			t.Errorf("%q was accepted", source)
		}
	}
}
