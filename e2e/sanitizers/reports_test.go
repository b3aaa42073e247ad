package sanitizers

import (
	"strings"
	"testing"
)

const (
	ourSide = `    #0 operator delete(void*, unsigned long) <null> (libtsan.so.2+0x8a6d1)
    #1 std::vector<int>::push_back(int&&) <null> (collage+0x2f1)
    #2 collage::node::Holds::add(int) <null> (collage+0x2f1d3)
    #3 grpc::internal::CallbackUnaryHandler<csi::v1::A, csi::v1::B>::RunHandler() <null> (collage+0x1)
`
	theirSide = `    #0 memcpy <null> (libtsan.so.2+0x8a6d1)
    #1 grpc::ServerUnaryReactor::Finish(grpc::Status) <null> (collage+0x2f1d3)
    #2 collage::csi::Call::answer(absl::Status const&) <null> (collage+0x2f1d3)
`
)

// side is one whose innermost frame is given, called by ours.
func side(frame string) string {
	return "    #0 " + frame + " <null> (collage+0x2f1)\n    #1 collage::node::Holds::add(int) <null> (collage+0x2f1d3)\n"
}

func race(a, b string) string {
	return "==================\nWARNING: ThreadSanitizer: data race (pid=1)\n  Write of size 8 at 0x7b14 by thread T3:\n" + a +
		"\n  Previous read of size 8 at 0x7b14 by thread T2 (mutexes: write M1):\n" + b +
		"\n  Thread T3 (tid=7, running) created by main thread at:\n" + ourSide + "\nSUMMARY: ThreadSanitizer: data race\n==================\n"
}

func TestReportsAreFoundAmongOtherLines(t *testing.T) {
	const before, after = `{"level":"info","message":"a line before"}` + "\n", `{"level":"info","message":"a line after"}` + "\n"
	for _, c := range []struct {
		name, text string
		found      bool
	}{
		{"nothing", "", false},
		{"an error that is none of theirs", `{"level":"error","message":"a runtime error"}`, false},
		{"AddressSanitizer", "==1==ERROR: AddressSanitizer: heap-use-after-free on address 0x6\n", true},
		{"LeakSanitizer", "==1==ERROR: LeakSanitizer: detected memory leaks\n", true},
		{"UndefinedBehaviorSanitizer", "base/a.cpp:3:5: runtime error: signed integer overflow\n", true},
		{"a helper that an agent quotes", `{"error":"INTERNAL: exit 1: \n==9==ERROR: AddressSanitizer: SEGV\n"}` + "\n", true},
		{"a race of ours", race(ourSide, ourSide), true},
		{"ours, by a template of the standard library", race(side("void std::_Construct<int, int>(int*, int&&)"), ourSide), true},
		{"ours, by a template of its own", race("    #0 bool collage::base::apply<int>(int) <null> (collage+0x1)\n", ourSide), true},
		{"ours, in JSON", race(side("nlohmann::basic_json<>::destroy()"), side("bool nlohmann::operator==<int>(int)")), true},
		{"ours, in a Cord", race(side("absl::Cord::Append(absl::Cord const&)"), ourSide), true},
		{"cpprestsdk's, by a template", race("    #0 void boost::asio::detail::op<int>(int) <null> (collage+0x1)\n"+ourSide, ourSide), false},
		{"one side is gRPC's", race(ourSide, theirSide), false},
		{"both sides are gRPC's", race(theirSide, theirSide), false},
		{"gRPC's, then ours", race(theirSide, theirSide) + race(ourSide, ourSide), true},
		{"ours and a side that is lost", race(ourSide, "    [failed to restore the stack]\n"), true},
		{"ours amid which the program ended", strings.TrimSuffix(race(ourSide, ourSide), "==================\n"), true},
		{"no race, in whomever", "==================\nWARNING: ThreadSanitizer: lock-order-inversion (potential deadlock) (pid=1)\n" + theirSide + "==================\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if found := Find(before + c.text + after); (found != "") != c.found {
				t.Errorf("it found %q", found)
			}
		})
	}
}
