package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// mutant is a program with one guard taken out, and the test that must notice.
type mutant struct {
	name string // a sentence: what the program does not do any more
	file string // from the repository's root
	exe  string // unit_reconcile, or a Go package of e2e: ./rights
	// What --gtest_filter gets, or go test's -run.
	filter      string
	text        []string // lines of the file, compared word by word
	replacement []string
	where       string // of the entry, for messages
}

// isGo tells whether the test is a Go package of e2e; all others are programs of unit/.
func (m mutant) isGo() bool { return strings.HasPrefix(m.exe, "./") }

// readTable reads all *.txt of a folder. An entry:
//
//	mutant: a sentence
//	file: operator/reconcile/provision.cpp
//	test: unit_reconcile Provision.ThatTest:Provision.ThisTest    (or: ./rights TestRights/operator)
//	- lines that the file must have once
//	+ lines that take their place
//
// Entries end at an empty line or the next entry; a line that begins with # is a comment.
func readTable(folder string) ([]mutant, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.txt"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("%s holds no table (%v)", folder, err)
	}
	sort.Strings(paths)
	var all []mutant
	for _, path := range paths {
		mutants, err := readFile(path)
		if err != nil {
			return nil, err
		}
		all = append(all, mutants...)
	}
	return all, nil
}

func readFile(path string) ([]mutant, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var all []mutant
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		where := fmt.Sprintf("%s:%d", path, number)
		if err := readLine(lines.Text(), where, &all); err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
	}
	for _, m := range all {
		if m.file == "" || m.exe == "" || m.filter == "" || len(m.text) == 0 {
			return nil, fmt.Errorf("%s: the entry needs file:, test: and at least one line with -", m.where)
		}
	}
	return all, lines.Err()
}

func readLine(line, where string, all *[]mutant) error {
	if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	if name, ok := strings.CutPrefix(line, "mutant: "); ok {
		*all = append(*all, mutant{name: name, where: where})
		return nil
	}
	if len(*all) == 0 {
		return fmt.Errorf("an entry begins with mutant:")
	}
	m := &(*all)[len(*all)-1]
	if file, ok := strings.CutPrefix(line, "file: "); ok {
		m.file = file
	} else if test, ok := strings.CutPrefix(line, "test: "); ok {
		m.exe, m.filter, _ = strings.Cut(test, " ")
	} else if text, ok := strings.CutPrefix(line, "-"); ok {
		m.text = append(m.text, text)
	} else if text, ok := strings.CutPrefix(line, "+"); ok {
		m.replacement = append(m.replacement, text)
	} else {
		return fmt.Errorf("neither mutant:, file:, test:, - nor +")
	}
	return nil
}

// mutate answers the source with the guard taken out. The text must be there once; white space does not count, so that
// a line that was wrapped anew is still found.
func (m mutant) mutate(source string) (string, error) {
	places := find(source, strings.Fields(strings.Join(m.text, "\n")))
	if len(places) != 1 {
		return "", fmt.Errorf("%s: %s has the text %d times, it must have it once", m.where, m.file, len(places))
	}
	at := places[0]
	return source[:at.begin] + strings.Join(m.replacement, "\n") + source[at.end:], nil
}

type span struct{ begin, end int }

// find looks for words that follow each other with nothing but white space, or nothing, between them.
func find(source string, words []string) []span {
	var places []span
	for begin := strings.Index(source, words[0]); begin >= 0; {
		if end, ok := follow(source, begin, words); ok {
			places = append(places, span{begin, end})
		}
		next := strings.Index(source[begin+1:], words[0])
		if next < 0 {
			break
		}
		begin += 1 + next
	}
	return places
}

func follow(source string, at int, words []string) (int, bool) {
	for i, word := range words {
		if i > 0 {
			at += len(source[at:]) - len(strings.TrimLeft(source[at:], " \t\n"))
		}
		if !strings.HasPrefix(source[at:], word) {
			return 0, false
		}
		at += len(word)
	}
	return at, true
}
