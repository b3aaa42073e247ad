#pragma once

#include <string_view>

// What comes into the program from outside as bytes. Each takes any bytes whatever; it aborts when the
// program breaks a promise about them. Run by libFuzzer (make fuzz), and over their checked-in inputs by the
// unit tests.
namespace collage::fuzz {

// What an API server sends: the first byte says in which pieces, the rest is a watch's stream and, tried too,
// a list.
void watch_stream(std::string_view input);
// A file of backends, as a host has them.
void yaml_backend(std::string_view input);
// A file of the node's journal.
void journal(std::string_view input);

// Ends the process: `what` names the promise.
void require(bool kept, const char* what);

}  // namespace collage::fuzz
