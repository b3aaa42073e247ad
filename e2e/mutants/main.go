// Program mutants shows that the tests can fail: it takes one guard after the other out of a copy of the program,
// and demands that the test named beside it notices. The table is unit/mutants/*.txt; the copy is build/mutants.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// patience is how long one run of a test may last: a mutant that hangs is noticed too.
const patience = 3 * time.Minute

type workshop struct {
	root string // the repository
	tree string // the copy
	jobs string
}

func main() {
	root := flag.String("root", "..", "the repository")
	only := flag.String("run", "", "a regular expression: only mutants whose name it matches")
	jobs := flag.String("jobs", "2", "compilers at once")
	tree := flag.String("tree", "", "where the copy is kept; without it build/mutants/tree of the repository")
	flag.Parse()
	if err := run(*root, *tree, *only, *jobs); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(root, tree, only, jobs string) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	if tree == "" {
		tree = filepath.Join(root, "build", "mutants", "tree")
	}
	if tree, err = filepath.Abs(tree); err != nil {
		return err
	}
	all, err := readTable(filepath.Join(root, "unit", "mutants"))
	if err != nil {
		return err
	}
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	var mutants []mutant
	for _, m := range all {
		if wanted.MatchString(m.name) {
			mutants = append(mutants, m)
		}
	}
	w := workshop{root: root, tree: tree, jobs: jobs}
	if err := w.prepare(mutants); err != nil {
		return err
	}
	return w.try(mutants)
}

// prepare makes the copy, builds it, and demands that every test passes as long as nothing was taken out.
func (w workshop) prepare(mutants []mutant) error {
	if err := w.copyTree(); err != nil {
		return fmt.Errorf("copy the repository: %w", err)
	}
	for _, m := range mutants {
		source, err := os.ReadFile(filepath.Join(w.tree, m.file))
		if err != nil {
			return err
		}
		if _, err := m.mutate(string(source)); err != nil {
			return err
		}
	}
	if out, err := w.command("cmake", "--preset", "release").CombinedOutput(); err != nil {
		return fmt.Errorf("cmake: %w\n%s", err, out)
	}
	begun := time.Now()
	targets := map[string]bool{}
	var names []string
	for _, m := range mutants {
		if targets[m.exe] {
			continue
		}
		targets[m.exe] = true
		if !m.isGo() {
			names = append(names, m.exe)
		} else if err := w.lendTools(); err != nil {
			return err
		}
	}
	if len(names) > 0 {
		fmt.Printf("building %s without a mutation\n", strings.Join(names, ", "))
		if out, err := w.build(names...); err != nil {
			return fmt.Errorf("build: %w\n%s", err, tail(out))
		}
	}
	passed := map[string]bool{}
	for _, m := range mutants {
		test := m.exe + " " + m.filter
		if passed[test] {
			continue
		}
		passed[test] = true
		out, err := w.test(m)
		if err != nil {
			// A test that fails now and then would kill every mutant: it is mended before it is believed.
			return fmt.Errorf("%s fails without any mutation: %w\n%s", test, err, tail(out))
		}
		if !bytes.Contains(out, []byte("[       OK ]")) && !bytes.Contains(out, []byte("--- PASS")) {
			return fmt.Errorf("%s: %s runs no test", m.where, test)
		}
	}
	fmt.Printf("%d tests pass without a mutation (%.0f s)\n", len(passed), time.Since(begun).Seconds())
	return nil
}

func (w workshop) try(mutants []mutant) error {
	var survivors []mutant
	var broken []error
	for i, m := range mutants {
		begun := time.Now()
		verdict, err := w.tryOne(m)
		if err != nil {
			verdict = "broken"
			broken = append(broken, err)
		}
		if verdict == "survived" {
			survivors = append(survivors, m)
		}
		fmt.Printf("%3d/%d  %-8s  %4.0f s  %s\n", i+1, len(mutants), verdict, time.Since(begun).Seconds(), m.name)
	}
	for _, m := range survivors {
		fmt.Printf("survived: %s\n          %s: %s %s passes all the same\n", m.name, m.where, m.exe, m.filter)
	}
	fmt.Printf("%d killed, %d survived\n", len(mutants)-len(survivors)-len(broken), len(survivors))
	if len(survivors) > 0 {
		broken = append(broken, errors.New("a guard can be taken out and no test notices"))
	}
	return errors.Join(broken...)
}

func (w workshop) tryOne(m mutant) (verdict string, err error) {
	path := filepath.Join(w.tree, m.file)
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	mutated, err := m.mutate(string(source))
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, []byte(mutated), 0o644); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.WriteFile(path, source, 0o644)) }()
	if !m.isGo() {
		if out, err := w.build(m.exe); err != nil {
			return "", fmt.Errorf("%s: the mutant does not compile: %w\n%s", m.where, err, tail(out))
		}
	}
	out, err := w.test(m)
	if err == nil {
		return "survived", nil
	}
	if errors.Is(err, context.DeadlineExceeded) || bytes.Contains(out, []byte("[  FAILED  ]")) {
		return "killed", nil
	}
	if m.isGo() && bytes.Contains(out, []byte("    --- FAIL")) { // not the test alone, which would be its set-up
		return "killed", nil
	}
	// A crash is a failure too, as long as the test was running.
	if bytes.Contains(out, []byte("[ RUN      ]")) {
		return "killed", nil
	}
	return "", fmt.Errorf("%s: %s did not run: %w\n%s", m.where, m.exe, err, tail(out))
}

// lendTools gives the copy what e2e/setup/tools.sh has built: Kubernetes is no part of any mutant.
func (w workshop) lendTools() error {
	bin := filepath.Join("build", "e2e", "bin")
	if _, err := os.Stat(filepath.Join(w.root, bin, "kube")); err != nil {
		return fmt.Errorf("%w: run e2e/setup/tools.sh, which builds it", err)
	}
	if err := os.MkdirAll(filepath.Join(w.tree, filepath.Dir(bin)), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Join(w.root, bin), filepath.Join(w.tree, bin)); !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (w workshop) command(name string, arguments ...string) *exec.Cmd {
	command := exec.Command(name, arguments...)
	command.Dir = w.tree
	return command
}

func (w workshop) build(targets ...string) ([]byte, error) {
	arguments := append([]string{"-C", "build/release", "-j", w.jobs}, targets...)
	return w.command("ninja", arguments...).CombinedOutput()
}

func (w workshop) test(m mutant) ([]byte, error) {
	if m.isGo() {
		// No deadline of ours: killed from here, it would leave its cluster behind.
		command := exec.Command("go", "test", "-count=1", "-v", "-timeout=15m", "-run="+m.filter, m.exe)
		command.Dir = filepath.Join(w.tree, "e2e")
		return command.CombinedOutput()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(w.tree, "build/release/bin", m.exe),
		"--gtest_fail_fast", "--gtest_color=no", "--gtest_filter="+m.filter)
	command.Dir = w.tree
	out, err := command.CombinedOutput()
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return out, err
}

// copyTree brings the copy up to date: what git knows or would add. A file that is the same is left alone, so that
// only what changed is compiled again.
func (w workshop) copyTree() error {
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = w.root
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	present := map[string]bool{}
	for _, name := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(w.root, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, and git not told yet
		}
		if err != nil {
			return err
		}
		present[name] = true
		to := filepath.Join(w.tree, name)
		if old, err := os.ReadFile(to); err == nil && bytes.Equal(old, content) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, content, 0o755); err != nil {
			return err
		}
	}
	return w.removeOthers(present)
}

func (w workshop) removeOthers(present map[string]bool) error {
	return filepath.WalkDir(w.tree, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(w.tree, path)
		if name == "build" {
			return filepath.SkipDir
		}
		if entry.Type().IsRegular() && !present[name] {
			return os.Remove(path)
		}
		return nil
	})
}

func tail(out []byte) []byte {
	const most = 4000
	if len(out) > most {
		return out[len(out)-most:]
	}
	return out
}
