// Between operators and onnxruntime: a status that unwinds as an exception, which never gets out of this library.
#pragma once

#include <new>
#include <string>

#include "ort_abi.h"

namespace caffeconv {

// A status that unwinds to the callback, which hands it to onnxruntime.
struct Failure {
  OrtStatus* status;
};

inline void check(OrtStatus* status) {
  if (status != nullptr) throw Failure{status};
}

[[noreturn]] inline void refuse(const OrtApi* api, const std::string& message) {
  throw Failure{ort::CreateStatus::call(api, int{ort::kInvalidArgument}, message.c_str())};
}

// a·b of sizes; an empty tensor may have others beside its 0 that no int64 holds multiplied.
inline int64_t checked_product(const OrtApi* api, int64_t a, int64_t b) {
  if (a != 0 && b > INT64_MAX / a) refuse(api, "caffeconv: a shape with more elements than can be counted");
  return a * b;
}

// No exception crosses into onnxruntime.
template <typename F>
OrtStatus* guarded(const OrtApi* api, F f) {
  try {
    f();
    return nullptr;
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::bad_alloc&) {
    return ort::CreateStatus::call(api, int{ort::kFail}, "caffeconv: out of memory");
  } catch (...) {
    return ort::CreateStatus::call(api, int{ort::kFail}, "caffeconv: unexpected exception");
  }
}

}  // namespace caffeconv
