#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace collage::kube {

// A string kept once in the process, for what repeats over thousands of objects: driver, class, namespace,
// finalizer names. Eight bytes, compared by address, never freed (so only for values from small sets). Thread
// safe.
class Interned {
 public:
  Interned();  // ""
  Interned(std::string_view text);
  const std::string& str() const { return *text_; }
  operator std::string_view() const { return *text_; }
  bool empty() const { return text_->empty(); }
  friend bool operator==(Interned a, Interned b) { return a.text_ == b.text_; }
  friend bool operator==(Interned a, std::string_view b) { return *a.text_ == b; }

 private:
  const std::string* text_;
};

}  // namespace collage::kube
