#include "training.h"

#include <algorithm>
#include <cfloat>
#include <vector>

#include "guarded.h"

extern "C" ORT_EXPORT int caffeconv_has_training_ops() { return 1; }

namespace caffeconv {
namespace {

struct Floats {
  float* data;
  std::vector<int64_t> dims;
  int64_t count;
};

Floats input_of(const OrtApi* api, const OrtKernelContext* context, size_t index) {
  const OrtValue* value = nullptr;
  check(ort::KernelContextGetInput::call(api, context, index, &value));
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(ort::GetTensorTypeAndShape::call(api, value, &info));
  Floats floats = {};
  size_t rank = 0;
  OrtStatus* status = ort::GetDimensionsCount::call(api, info, &rank);
  if (status == nullptr) {
    floats.dims.resize(rank);
    status = ort::GetDimensions::call(api, info, floats.dims.data(), rank);
  }
  ort::ReleaseTensorTypeAndShapeInfo::call(api, info);
  check(status);
  floats.count = 1;
  for (const int64_t dim : floats.dims) floats.count = checked_product(api, floats.count, dim);
  void* data = nullptr;
  check(ort::GetTensorMutableData::call(api, const_cast<OrtValue*>(value), &data));
  floats.data = static_cast<float*>(data);
  return floats;
}

float* output_like(const OrtApi* api, OrtKernelContext* context, size_t index, const Floats& like) {
  static const int64_t none = 0;
  OrtValue* value = nullptr;
  const int64_t* dims = like.dims.empty() ? &none : like.dims.data();
  check(ort::KernelContextGetOutput::call(api, context, index, dims, like.dims.size(), &value));
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

struct Axis {
  int64_t kernel, stride, pad;
};

struct MaxPoolGrad {
  static constexpr const char* kName = "MaxPoolGrad";
  static constexpr size_t kInputs = 2, kOutputs = 1;
  const OrtApi* api;
  Axis rows, columns;

  MaxPoolGrad(const OrtApi* given, const OrtKernelInfo* info) : api(given) {
    rows = {attribute(info, "kernel_h"), attribute(info, "stride_h"), attribute(info, "pad_h")};
    columns = {attribute(info, "kernel_w"), attribute(info, "stride_w"), attribute(info, "pad_w")};
    for (const Axis& axis : {rows, columns}) {
      const int64_t greatest = std::max(std::max(axis.kernel, axis.stride), axis.pad);
      if (axis.stride < 1 || axis.kernel < 1 || axis.pad < 0 || greatest > INT32_MAX) {
        refuse(api, "MaxPoolGrad: kernels and strides from 1 on, and pads from 0 on, none beyond 2147483647, were needed");
      }
    }
  }

  int64_t attribute(const OrtKernelInfo* info, const char* name) const {
    int64_t value = 0;
    check(ort::KernelInfoGetAttributeInt64::call(api, info, name, &value));
    return value;
  }

  void compute(OrtKernelContext* context) const {
    const Floats bottom = input_of(api, context, 0);
    const Floats diff = input_of(api, context, 1);
    if (bottom.dims.size() != 4 || diff.dims.size() != 4 || bottom.dims[0] != diff.dims[0] ||
        bottom.dims[1] != diff.dims[1]) {
      refuse(api, "MaxPoolGrad: bottom N×C×H×W and a diff N×C×H'×W' were needed");
    }
    float* const result = output_like(api, context, 0, bottom);
    if (diff.count == 0 || bottom.count == 0) {  // whose other sizes may be beyond counting
      std::fill(result, result + bottom.count, 0.0f);
      return;
    }
    const int64_t height = bottom.dims[2], width = bottom.dims[3];
    const int64_t pooled_height = diff.dims[2], pooled_width = diff.dims[3];
    in_parts(api, context, bottom.dims[0] * bottom.dims[1], 1, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        const float* const x = bottom.data + plane * height * width;
        const float* const dy = diff.data + plane * pooled_height * pooled_width;
        float* const dx = result + plane * height * width;
        std::fill(dx, dx + height * width, 0.0f);
        for (int64_t i = 0; i < pooled_height; ++i) {
          const int64_t top = i * rows.stride - rows.pad;
          const int64_t first_row = std::max<int64_t>(top, 0), last_row = std::min(top + rows.kernel, height);
          for (int64_t j = 0; j < pooled_width; ++j) {
            const int64_t left = j * columns.stride - columns.pad;
            const int64_t first = std::max<int64_t>(left, 0), last = std::min(left + columns.kernel, width);
            float greatest = -FLT_MAX;
            int64_t place = -1;
            for (int64_t row = first_row; row < last_row; ++row) {
              for (int64_t column = first; column < last; ++column) {
                if (x[row * width + column] > greatest) {
                  place = row * width + column;
                  greatest = x[place];
                }
              }
            }
            if (place >= 0) dx[place] += dy[i * pooled_width + j];
          }
        }
      }
    });
  }
};

struct ReLUGrad {
  static constexpr const char* kName = "ReLUGrad";
  static constexpr size_t kInputs = 3, kOutputs = 1;
  const OrtApi* api;

  ReLUGrad(const OrtApi* given, const OrtKernelInfo*) : api(given) {}

  void compute(OrtKernelContext* context) const {
    const Floats values = input_of(api, context, 0);
    const Floats diff = input_of(api, context, 1);
    const Floats slope = input_of(api, context, 2);
    if (values.count != diff.count || slope.count != 1) {
      refuse(api, "ReLUGrad: values and a diff of one size, and a scalar, were needed");
    }
    float* const result = output_like(api, context, 0, diff);
    const float negative_slope = slope.data[0];
    in_parts(api, context, diff.count, 1 << 15, [&](int64_t begin, int64_t end) {
      const float* const x = values.data;
      const float* const dy = diff.data;
      for (int64_t i = begin; i < end; ++i) result[i] = dy[i] * (x[i] > 0 ? 1.0f : negative_slope);
    });
  }
};

struct SGDUpdate {
  static constexpr const char* kName = "SGDUpdate";
  static constexpr size_t kInputs = 6, kOutputs = 2;
  const OrtApi* api;

  SGDUpdate(const OrtApi* given, const OrtKernelInfo*) : api(given) {}

  void compute(OrtKernelContext* context) const {
    const Floats value = input_of(api, context, 0);
    const Floats gradient = input_of(api, context, 1);
    const Floats history = input_of(api, context, 2);
    float scalars[3];
    for (size_t i = 0; i < 3; ++i) {
      const Floats scalar = input_of(api, context, 3 + i);
      if (scalar.count != 1) refuse(api, "SGDUpdate: rate, momentum and decay are scalars");
      scalars[i] = scalar.data[0];
    }
    if (gradient.count != value.count || history.count != value.count) {
      refuse(api, "SGDUpdate: value, gradient and history of one size were needed");
    }
    float* const next_value = output_like(api, context, 0, value);
    float* const next_history = output_like(api, context, 1, value);
    const float rate = scalars[0], momentum = scalars[1], decay = scalars[2];
    in_parts(api, context, value.count, 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float speed = momentum * history.data[i] + rate * (gradient.data[i] + decay * value.data[i]);
        next_history[i] = speed;
        next_value[i] = value.data[i] - speed;
      }
    });
  }
};

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

}  // namespace

OrtStatus* add_training_ops(const OrtApi* api, OrtCustomOpDomain* domain) {
  for (const OrtCustomOp* op : {custom_op<MaxPoolGrad>(), custom_op<ReLUGrad>(), custom_op<SGDUpdate>()}) {
    OrtStatus* status = ort::CustomOpDomainAdd::call(api, domain, op);
    if (status != nullptr) return status;
  }
  return nullptr;
}

}  // namespace caffeconv
