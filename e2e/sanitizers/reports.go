// Package sanitizers finds in what a program writes the reports of AddressSanitizer, LeakSanitizer,
// UndefinedBehaviorSanitizer and ThreadSanitizer.
package sanitizers

import (
	"regexp"
	"strings"
)

var (
	first = regexp.MustCompile(`ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|: runtime error: `)
	frame = regexp.MustCompile(`^\s*#\d+ (?:0x[0-9a-f]+ in )?(.*)$`)
	// What is called by those whose deed it is.
	library = regexp.MustCompile(`^(std::|__gnu_cxx::|absl::|nlohmann::|fmt::|spdlog::|operator |__interceptor_|<null>|mem(cpy|move|set|cmp)\b|(m|c|re)alloc\b|free\b)`)
	// Libraries that are not instrumented: their own locks are not seen.
	unseen = regexp.MustCompile(`^(grpc::|grpc_|google::protobuf::|boost::asio::|web::|pplx::|Concurrency::|concurrency::)`)
)

// deed is a frame's function, without the type that the name of a template begins with.
func deed(name string) string {
	if strings.HasPrefix(name, "operator ") {
		return name
	}
	head, _, _ := strings.Cut(name, "(")
	head, _, _ = strings.Cut(head, "<")
	if space := strings.LastIndex(head, " "); space >= 0 && space+1 < len(head) {
		return name[space+1:]
	}
	return name
}

// Reader takes the lines of one program. The zero value is ready.
type Reader struct {
	report []string // of ThreadSanitizer, as far as it was read
}

// Line takes the next line and answers the report that ended with it, or nothing.
func (r *Reader) Line(line string) (report string) {
	// An agent that quotes what its helper said does so in one line of JSON.
	for _, line := range strings.Split(strings.ReplaceAll(line, `\n`, "\n"), "\n") {
		switch {
		case len(r.report) == 0 && strings.Contains(line, "WARNING: ThreadSanitizer"):
			r.report = []string{line}
		case len(r.report) > 0 && !strings.HasPrefix(line, "=================="):
			r.report = append(r.report, line)
		case len(r.report) > 0:
			report += r.End()
		case first.MatchString(line):
			report += line + "\n"
		}
	}
	return report
}

// End answers the report amid which the program ended, or nothing.
func (r *Reader) End() (report string) {
	if len(r.report) > 0 && ours(r.report) {
		report = strings.Join(r.report, "\n") + "\n"
	}
	r.report = nil
	return report
}

// Find answers the reports in all that a program wrote.
func Find(text string) (reports string) {
	var r Reader
	for _, line := range strings.Split(text, "\n") {
		reports += r.Line(line)
	}
	return reports + r.End()
}

// ours tells a data race that ThreadSanitizer can judge from one that it cannot. gRPC is not instrumented: a lock of
// its own, under which it hands a call from one thread to another, is not seen, so each of its templates in our program
// looks like a race with the next; so it is with what cpprestsdk hands on. Such a race does not count: one of its sides is
// a deed of theirs, by the innermost frame that is not of a library of headers, which is its caller's deed. Every other
// report counts, whoever is in it.
func ours(report []string) bool {
	if !strings.Contains(report[0], "data race") {
		return true
	}
	looking := false
	for _, line := range report[1:] {
		if found := frame.FindStringSubmatch(line); found != nil {
			if name := deed(found[1]); looking && !library.MatchString(name) {
				looking = false
				if unseen.MatchString(name) {
					return false
				}
			}
			continue
		}
		looking = strings.Contains(line, " of size ") && strings.Contains(line, " by ") || looking && strings.TrimSpace(line) != ""
	}
	return true
}
