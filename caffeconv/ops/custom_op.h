// What operators of float32 tensors have in common: reading inputs, work in onnxruntime's threads, and the callbacks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "guarded.h"

namespace caffeconv {

struct Tensor {
  float* data;
  std::vector<int64_t> dims;
  int64_t count;
};

inline Tensor input_of(const OrtApi* api, const OrtKernelContext* context, size_t index) {
  const OrtValue* value = nullptr;
  check(ort::KernelContextGetInput::call(api, context, index, &value));
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(ort::GetTensorTypeAndShape::call(api, value, &info));
  Tensor tensor = {};
  size_t rank = 0;
  OrtStatus* status = ort::GetDimensionsCount::call(api, info, &rank);
  if (status == nullptr) {
    tensor.dims.resize(rank);
    status = ort::GetDimensions::call(api, info, tensor.dims.data(), rank);
  }
  ort::ReleaseTensorTypeAndShapeInfo::call(api, info);
  check(status);
  tensor.count = 1;
  for (const int64_t dim : tensor.dims) tensor.count = checked_product(api, tensor.count, dim);
  void* data = nullptr;
  check(ort::GetTensorMutableData::call(api, const_cast<OrtValue*>(value), &data));
  tensor.data = static_cast<float*>(data);
  return tensor;
}

inline float* output_of(const OrtApi* api, OrtKernelContext* context, size_t index, const std::vector<int64_t>& shape) {
  static const int64_t none = 0;
  OrtValue* value = nullptr;
  const int64_t* dims = shape.empty() ? &none : shape.data();
  check(ort::KernelContextGetOutput::call(api, context, index, dims, shape.size(), &value));
  void* data = nullptr;
  check(ort::GetTensorMutableData::call(api, value, &data));
  return static_cast<float*>(data);
}

// Calls f(begin, end) for parts of 0..total, each of at least `least` items, in onnxruntime's threads.
template <typename F>
void in_parts(const OrtApi* api, OrtKernelContext* context, int64_t total, int64_t least, F f) {
  struct Job {
    F* f;
    int64_t total, parts;
  };
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(64, total / std::max<int64_t>(1, least)));
  Job job = {&f, total, parts};
  if (parts == 1) {
    f(int64_t{0}, total);
    return;
  }
  void (*run)(void*, size_t) = [](void* user, size_t part) {
    const Job& given = *static_cast<Job*>(user);
    const int64_t number = static_cast<int64_t>(part);
    (*given.f)(given.total * number / given.parts, given.total * (number + 1) / given.parts);
  };
  const OrtKernelContext* reading = context;
  check(ort::KernelContextParallelFor::call(api, reading, run, static_cast<size_t>(parts), size_t{0},
                                            static_cast<void*>(&job)));
}

inline int64_t integer_attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name) {
  int64_t value = 0;
  check(ort::KernelInfoGetAttributeInt64::call(api, info, name, &value));
  return value;
}

// Op has kName, kInputs, kOutputs, a constructor of (api, info), `api` and compute(context).
template <typename Op>
const OrtCustomOp* custom_op() {
  static const OrtCustomOp op = [] {
    OrtCustomOp made = {};
    made.version = ort::kApiVersion;
    made.GetName = [](const OrtCustomOp*) { return Op::kName; };
    made.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
    made.GetInputTypeCount = [](const OrtCustomOp*) { return Op::kInputs; };
    made.GetInputType = [](const OrtCustomOp*, size_t) { return int{ort::kFloat}; };
    made.GetOutputTypeCount = [](const OrtCustomOp*) { return Op::kOutputs; };
    made.GetOutputType = [](const OrtCustomOp*, size_t) { return int{ort::kFloat}; };
    made.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return int{ort::kRequired}; };
    made.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return int{ort::kRequired}; };
    made.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };
    made.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
    made.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
    made.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
    made.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
    made.GetStartVersion = [](const OrtCustomOp*) { return 1; };
    made.GetEndVersion = [](const OrtCustomOp*) { return INT32_MAX; };
    made.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
      return guarded(api, [&] { *kernel = new Op(api, info); });
    };
    made.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      const Op& op = *static_cast<const Op*>(kernel);
      return guarded(op.api, [&] { op.compute(context); });
    };
    made.KernelDestroy = [](void* kernel) { delete static_cast<Op*>(kernel); };
    // Never called where the V2 pair is there, but a null callback would be.
    made.CreateKernel = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*) -> void* { return nullptr; };
    made.KernelCompute = [](void*, OrtKernelContext*) {};
    return made;
  }();
  return &op;
}

}  // namespace caffeconv
