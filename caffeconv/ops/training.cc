#include "training.h"

#include <cfloat>

#include "conv_grad.h"
#include "custom_op.h"

extern "C" ORT_EXPORT int caffeconv_has_training_ops() { return 2; }

namespace caffeconv {
namespace {

struct Axis {
  int64_t kernel, stride, pad;
};

struct MaxPoolGrad {
  static constexpr const char* kName = "MaxPoolGrad";
  static constexpr size_t kInputs = 2, kOutputs = 1;
  static constexpr int kSide = 4;
  const OrtApi* api;
  Axis rows, columns;

  MaxPoolGrad(const OrtApi* given, const OrtKernelInfo* info) : api(given) {
    const auto number = [&](const char* name) { return integer_attribute(api, info, name); };
    rows = {number("kernel_h"), number("stride_h"), number("pad_h")};
    columns = {number("kernel_w"), number("stride_w"), number("pad_w")};
    for (const Axis& axis : {rows, columns}) {
      const int64_t greatest = std::max(std::max(axis.kernel, axis.stride), axis.pad);
      if (axis.stride < 1 || axis.kernel < 1 || axis.pad < 0 || greatest > INT32_MAX) {
        refuse(api,
               "MaxPoolGrad: kernels and strides from 1 on, and pads from 0 on, none beyond 2147483647, were needed");
      }
    }
  }

  // The diffs of one row of windows, a few of them side by side: what each finds depends on what it found before.
  void spread_row(const float* x, int64_t height, int64_t width, int64_t i, int64_t number, const float* dy,
                  float* dx) const {
    const int64_t top = i * rows.stride - rows.pad;
    const int64_t first_row = std::max<int64_t>(top, 0), last_row = std::min(top + rows.kernel, height);
    const auto left = [&](int64_t j) { return j * columns.stride - columns.pad; };
    int64_t j = 0;
    while (j < number) {
      if (j + kSide <= number && left(j) >= 0 && left(j + kSide - 1) + columns.kernel <= width) {
        spread<kSide>(x, width, first_row, last_row, left(j), left(j) + columns.kernel, dy + j, dx);
        j += kSide;
      } else {
        const int64_t last = std::min(left(j) + columns.kernel, width);
        spread<1>(x, width, first_row, last_row, std::max<int64_t>(left(j), 0), last, dy + j, dx);
        ++j;
      }
    }
  }

  // The first window's columns are first..last-1; the next ones are a stride further each.
  template <int Number>
  void spread(const float* x, int64_t width, int64_t first_row, int64_t last_row, int64_t first, int64_t last,
              const float* dy, float* dx) const {
    float greatest[Number];
    int64_t place[Number];
    std::fill(greatest, greatest + Number, -FLT_MAX);
    std::fill(place, place + Number, int64_t{-1});
    for (int64_t row = first_row; row < last_row; ++row) {
      for (int64_t at = row * width + first; at < row * width + last; ++at) {
        for (int k = 0; k < Number; ++k) {
          const float value = x[at + k * columns.stride];
          const bool wins = value > greatest[k];  // no branch: nobody could guess it
          place[k] = wins ? at + k * columns.stride : place[k];
          greatest[k] = wins ? value : greatest[k];
        }
      }
    }
    for (int k = 0; k < Number; ++k) {
      if (place[k] >= 0) dx[place[k]] += dy[k];
    }
  }

  void compute(OrtKernelContext* context) const {
    const Tensor bottom = input_of(api, context, 0);
    const Tensor diff = input_of(api, context, 1);
    if (bottom.dims.size() != 4 || diff.dims.size() != 4 || bottom.dims[0] != diff.dims[0] ||
        bottom.dims[1] != diff.dims[1]) {
      refuse(api, "MaxPoolGrad: bottom N×C×H×W and a diff N×C×H'×W' were needed");
    }
    float* const result = output_of(api, context, 0, bottom.dims);
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
        for (int64_t i = 0; i < pooled_height; ++i) spread_row(x, height, width, i, pooled_width, dy + i * pooled_width, dx);
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
    const Tensor values = input_of(api, context, 0);
    const Tensor diff = input_of(api, context, 1);
    const Tensor slope = input_of(api, context, 2);
    if (values.count != diff.count || slope.count != 1) {
      refuse(api, "ReLUGrad: values and a diff of one size, and a scalar, were needed");
    }
    float* const result = output_of(api, context, 0, diff.dims);
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
    const Tensor value = input_of(api, context, 0);
    const Tensor gradient = input_of(api, context, 1);
    const Tensor history = input_of(api, context, 2);
    float scalars[3];
    for (size_t i = 0; i < 3; ++i) {
      const Tensor scalar = input_of(api, context, 3 + i);
      if (scalar.count != 1) refuse(api, "SGDUpdate: rate, momentum and decay are scalars");
      scalars[i] = scalar.data[0];
    }
    if (gradient.count != value.count || history.count != value.count) {
      refuse(api, "SGDUpdate: value, gradient and history of one size were needed");
    }
    float* const next_value = output_of(api, context, 0, value.dims);
    float* const next_history = output_of(api, context, 1, value.dims);
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

}  // namespace

OrtStatus* add_training_ops(const OrtApi* api, OrtCustomOpDomain* domain) {
  for (const OrtCustomOp* op : {conv_weight_grad(), conv_bottom_grad(), custom_op<MaxPoolGrad>(), custom_op<ReLUGrad>(),
                                custom_op<SGDUpdate>()}) {
    OrtStatus* status = ort::CustomOpDomainAdd::call(api, domain, op);
    if (status != nullptr) return status;
  }
  return nullptr;
}

}  // namespace caffeconv
