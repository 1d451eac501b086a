#include "python_layer.h"

#include <new>
#include <string>
#include <vector>

namespace {

thread_local PythonCallback callback_of_this_thread = nullptr;

}  // namespace

extern "C" ORT_EXPORT void caffeconv_set_python_callback(PythonCallback callback) {
  callback_of_this_thread = callback;
}

namespace caffeconv {
namespace {

struct PythonKernel {
  const OrtApi* api;
  PythonCallback callback;
  std::string name;
  int backward;
};

struct Shaped {
  PythonTensor tensor;
  std::vector<int64_t> dims;
};

OrtStatus* failure(const OrtApi* api, const std::string& message) {
  return ort::CreateStatus::call(api, int{ort::kFail}, message.c_str());
}

OrtStatus* read_name(const OrtApi* api, const OrtKernelInfo* info, std::string& name) {
  size_t size = 0;
  char* none = nullptr;
  OrtStatus* status = ort::KernelInfoGetAttributeString::call(api, info, "name", none, &size);
  if (status != nullptr) return status;
  std::vector<char> text(size + 1, '\0');
  status = ort::KernelInfoGetAttributeString::call(api, info, "name", text.data(), &size);
  if (status == nullptr) name = text.data();
  return status;
}

OrtStatus* create_kernel(const OrtApi* api, const OrtKernelInfo* info, int backward, void** kernel) {
  PythonKernel* made = new PythonKernel{api, callback_of_this_thread, {}, backward};
  OrtStatus* status = read_name(api, info, made->name);
  if (status != nullptr) {
    delete made;
    return status;
  }
  *kernel = made;
  return nullptr;
}

OrtStatus* read_input(const OrtApi* api, const OrtKernelContext* context, size_t index, Shaped& input) {
  const OrtValue* value = nullptr;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  OrtStatus* status = ort::KernelContextGetInput::call(api, context, index, &value);
  if (status != nullptr) return status;
  status = ort::GetTensorTypeAndShape::call(api, value, &info);
  if (status != nullptr) return status;
  size_t rank = 0;
  status = ort::GetDimensionsCount::call(api, info, &rank);
  if (status == nullptr) {
    input.dims.resize(rank + 1);  // never empty, so that there is memory to point to
    status = ort::GetDimensions::call(api, info, input.dims.data(), rank);
  }
  ort::ReleaseTensorTypeAndShapeInfo::call(api, info);
  if (status != nullptr) return status;
  void* data = nullptr;
  status = ort::GetTensorMutableData::call(api, const_cast<OrtValue*>(value), &data);
  input.tensor = {static_cast<const float*>(data), input.dims.data(), rank};
  return status;
}

int make_output(PythonCall* call, size_t index, const int64_t* dims, size_t rank, float** data) {
  OrtValue* value = nullptr;
  call->status = ort::KernelContextGetOutput::call(call->api, call->context, index, dims, rank, &value);
  if (call->status != nullptr) return 1;
  void* memory = nullptr;
  if (value != nullptr) call->status = ort::GetTensorMutableData::call(call->api, value, &memory);
  *data = static_cast<float*>(memory);
  return call->status == nullptr ? 0 : 1;
}

OrtStatus* compute(const PythonKernel& kernel, OrtKernelContext* context) {
  const OrtApi* api = kernel.api;
  if (kernel.callback == nullptr) {
    return failure(api, "a Python layer runs only where caffeconv makes the session, from the prototxt (caffeconv.Net)");
  }
  const OrtKernelContext* reading = context;
  PythonCall call = {kernel.name.c_str(), kernel.backward, 0, nullptr, 0, &make_output, api, context, nullptr};
  OrtStatus* status = ort::KernelContextGetInputCount::call(api, reading, &call.inputs);
  if (status == nullptr) status = ort::KernelContextGetOutputCount::call(api, reading, &call.outputs);
  if (status != nullptr) return status;
  std::vector<Shaped> inputs(call.inputs);
  std::vector<PythonTensor> tensors;
  for (size_t i = 0; i < call.inputs; ++i) {
    status = read_input(api, reading, i, inputs[i]);
    if (status != nullptr) return status;
    tensors.push_back(inputs[i].tensor);
  }
  call.input = tensors.data();
  const int failed = kernel.callback(&call);
  if (call.status != nullptr) return call.status;
  return failed == 0 ? nullptr : failure(api, "the layer's Python code failed");
}

// No exception crosses into onnxruntime; memory is all that can run out here.
template <typename F>
OrtStatus* guarded(const OrtApi* api, F f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return failure(api, "caffeconv: out of memory");
  }
}

struct Forward {
  static constexpr const char* kName = "Python";
  static constexpr int kBackward = 0;
};

struct Backward {
  static constexpr const char* kName = "PythonGrad";
  static constexpr int kBackward = 1;
};

template <typename Op>
const OrtCustomOp* python_op() {
  static const OrtCustomOp op = [] {
    OrtCustomOp made = {};
    made.version = ort::kApiVersion;
    made.GetName = [](const OrtCustomOp*) { return Op::kName; };
    made.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
    made.GetInputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
    made.GetInputType = [](const OrtCustomOp*, size_t) { return int{ort::kFloat}; };
    made.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
    made.GetOutputType = [](const OrtCustomOp*, size_t) { return int{ort::kFloat}; };
    made.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return int{ort::kVariadic}; };
    made.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return int{ort::kVariadic}; };
    made.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };
    made.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
    made.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
    made.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
    made.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
    made.GetStartVersion = [](const OrtCustomOp*) { return 1; };
    made.GetEndVersion = [](const OrtCustomOp*) { return INT32_MAX; };
    made.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
      return guarded(api, [&] { return create_kernel(api, info, Op::kBackward, kernel); });
    };
    made.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      const PythonKernel& self = *static_cast<const PythonKernel*>(kernel);
      return guarded(self.api, [&] { return compute(self, context); });
    };
    made.KernelDestroy = [](void* kernel) { delete static_cast<PythonKernel*>(kernel); };
    // Never called where the V2 pair is there, but a null callback would be.
    made.CreateKernel = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*) -> void* { return nullptr; };
    made.KernelCompute = [](void*, OrtKernelContext*) {};
    return made;
  }();
  return &op;
}

}  // namespace

OrtStatus* add_python_ops(const OrtApi* api, OrtCustomOpDomain* domain) {
  OrtStatus* status = ort::CustomOpDomainAdd::call(api, domain, python_op<Forward>());
  return status != nullptr ? status : ort::CustomOpDomainAdd::call(api, domain, python_op<Backward>());
}

}  // namespace caffeconv
