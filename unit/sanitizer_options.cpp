// Linked into every program of a build with sanitizers, so that a test, a container and a person's shell run
// with the same options. The environment (ASAN_OPTIONS, TSAN_OPTIONS) still overrides each.

// Libraries of the system are not instrumented: what ThreadSanitizer sees of their locks and atomics is
// nothing, so a race is judged only where our own code is on both sides. No suppressions: a file of those
// hides what it should not.
extern "C" const char* __tsan_default_options() {
  return "ignore_noninstrumented_modules=1";
}

extern "C" const char* __asan_default_options() {
  return "detect_stack_use_after_return=1";
}

extern "C" const char* __ubsan_default_options() {
  return "print_stacktrace=1";
}
