// caffeconv.Python and caffeconv.PythonGrad: layers whose arithmetic is a function that Python hands over.
//
//   Python(bottoms..., parameters...) -> (tops...)
//   PythonGrad(top diffs..., values that must be there first...) -> (bottom diffs..., parameter diffs...)
//
// All tensors are float32, of any shape; the attribute `name` says which layer it is. The structs are declared a second
// time in Python, in caffeconv/runtime/python_callback.py.
#pragma once

#include "ort_abi.h"

extern "C" {
struct PythonTensor {
  const float* data;
  const int64_t* dims;
  size_t rank;
};

struct PythonCall {
  const char* name;
  int backward;  // whether this is PythonGrad
  size_t inputs;
  const PythonTensor* input;
  size_t outputs;
  // Makes output `index` of that shape and gives its memory, null where it has no elements; 0 where that went well.
  int (*make_output)(PythonCall* call, size_t index, const int64_t* dims, size_t rank, float** data);

  // For this side only.
  const OrtApi* api;
  OrtKernelContext* context;
  OrtStatus* status;
};

// 0 where it went well. Called in whatever thread runs the session.
typedef int (*PythonCallback)(PythonCall* call);

// Kernels that this thread makes from now on call `callback`, which must live as long as they do; null: none.
ORT_EXPORT void caffeconv_set_python_callback(PythonCallback callback);
}

namespace caffeconv {

OrtStatus* add_python_ops(const OrtApi* api, OrtCustomOpDomain* domain);

}  // namespace caffeconv
