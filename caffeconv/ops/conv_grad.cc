#include "conv_grad.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "conv_grad_cpu.h"
#include "custom_op.h"

namespace caffeconv {
namespace {

// Memory that an operator works in, kept from one call to the next: what the system hands out anew, it clears page by page.
class Workspace {
 public:
  // `number` times as many floats as `each` says, not cleared.
  struct Pieces {
    int64_t number, each;
  };

  // Of calls at one time, all but one have memory that ends with them.
  class Lease {
   public:
    Lease(const OrtApi* api, Workspace* workspace, const Pieces& first, const Pieces& second) : workspace_(workspace) {
      const int64_t before = checked_product(api, first.number, first.each);
      const int64_t after = checked_product(api, second.number, second.each);
      if (before > INT64_MAX / 8 - after) throw std::bad_alloc();
      const int64_t size = before + after;
      {
        const std::lock_guard<std::mutex> lock(workspace->mutex_);
        floats_ = std::move(workspace->idle_);
        size_ = workspace->size_;
      }
      if (floats_ != nullptr && size_ >= size) return;
      floats_.reset(new float[static_cast<size_t>(size)]);
      size_ = size;
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() {
      const std::lock_guard<std::mutex> lock(workspace_->mutex_);
      workspace_->idle_ = std::move(floats_);
      workspace_->size_ = size_;
    }
    float* data() const { return floats_.get(); }

   private:
    Workspace* workspace_;
    std::unique_ptr<float[]> floats_;
    int64_t size_;
  };

 private:
  std::mutex mutex_;
  std::unique_ptr<float[]> idle_;
  int64_t size_ = 0;
};

// What the operators' attributes say: a group, and a window, whose sizes come with each call.
struct Window {
  const OrtApi* api;
  const char* op;
  int64_t group;
  ConvAxis rows, columns;

  Window(const OrtApi* given, const char* name, const OrtKernelInfo* info) : api(given), op(name) {
    const auto number = [&](const char* attribute) { return integer_attribute(api, info, attribute); };
    group = number("group");
    rows = {number("kernel_h"), number("stride_h"), number("pad_h"), number("dilation_h"), 0, 0, 0};
    columns = {number("kernel_w"), number("stride_w"), number("pad_w"), number("dilation_w"), 0, 0, 0};
    for (const ConvAxis& axis : {rows, columns}) {
      const int64_t least = std::min({axis.kernel, axis.stride, axis.dilation, group});
      const int64_t greatest = std::max({axis.kernel, axis.stride, axis.dilation, axis.pad, group});
      if (least < 1 || axis.pad < 0 || greatest > INT32_MAX) {
        fail(": kernels, strides, dilations and a group from 1 on, and pads from 0 on, none beyond 2147483647, were "
             "needed");
      }
    }
  }

  [[noreturn]] void fail(const char* what) const { refuse(api, std::string(op) + what); }

  // The axis with its sizes. The bounds let no product of two of its numbers overflow.
  ConvAxis sized(ConvAxis axis, int64_t size, int64_t positions) const {
    if (size > INT32_MAX || positions > INT32_MAX) fail(": sizes beyond 2147483647");
    axis.size = size;
    axis.positions = positions;
    axis.reach = (positions - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1;
    if (axis.reach > INT32_MAX) fail(": windows beyond 2147483647");
    return axis;
  }

  // Refuses planes whose copy with zeros around nobody could count.
  void check_copy(int64_t planes, const ConvAxis& tall, const ConvAxis& wide) const {
    checked_product(api, checked_product(api, planes, tall.reach), wide.reach);
  }
};

struct ConvWeightGrad {
  static constexpr const char* kName = "ConvWeightGrad";
  static constexpr size_t kInputs = 2, kOutputs = 1;
  static constexpr int64_t kSums = 1 << 16;  // of one part: they stay in the second cache
  static constexpr int64_t kParts = 16;      // at least, where there are as many items; as many threads have work
  const OrtApi* api;
  Window window;
  mutable Workspace workspace;

  ConvWeightGrad(const OrtApi* given, const OrtKernelInfo* info) : api(given), window(given, kName, info) {}

  void compute(OrtKernelContext* context) const {
    const Tensor bottom = input_of(api, context, 0);
    const Tensor top_diff = input_of(api, context, 1);
    const std::vector<int64_t>&x = bottom.dims, &dy = top_diff.dims;
    const int64_t group = window.group;
    if (x.size() != 4 || dy.size() != 4 || x[0] != dy[0] || x[1] % group != 0 || dy[1] % group != 0) {
      window.fail(": a bottom N×C×H×W and a diff N×O×H'×W', channels divided by the group, were needed");
    }
    const int64_t kernel = window.rows.kernel * window.columns.kernel;
    const int64_t count = checked_product(api, checked_product(api, dy[1], x[1] / group), kernel);
    float* const result = output_of(api, context, 0, {dy[1], x[1] / group, window.rows.kernel, window.columns.kernel});
    if (bottom.count == 0 || top_diff.count == 0) {
      std::fill(result, result + count, 0.f);
      return;
    }
    const ConvShape shape = {x[0], group, x[1] / group, dy[1] / group, window.sized(window.rows, x[2], dy[2]),
                             window.sized(window.columns, x[3], dy[3])};
    window.check_copy(shape.channels, shape.rows, shape.columns);
    sum_up(context, shape, bottom.data, top_diff.data, count, result);
  }

  // Parts of as many channels as the cache holds sums for, and of so many items that every thread has some.
  static std::vector<WeightGradPart> parts_of(const ConvShape& shape, int64_t item_ranges, int64_t blocks) {
    std::vector<WeightGradPart> parts;
    for (int64_t range = 0; range < item_ranges; ++range) {
      const int64_t item = shape.items * range / item_ranges, last = shape.items * (range + 1) / item_ranges;
      for (int64_t group = 0; group < shape.group; ++group) {
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t channel = shape.channels * block / blocks, end = shape.channels * (block + 1) / blocks;
          parts.push_back({group, channel, end - channel, item, last - item});
        }
      }
    }
    return parts;
  }

  void sum_up(OrtKernelContext* context, const ConvShape& shape, const float* bottom, const float* top_diff,
              int64_t count, float* result) const {
    const ConvGradKernels& kernels = conv_grad_kernels(best_build());
    const int64_t blocks = std::min(shape.channels, 1 + count / shape.group / kSums);
    const int64_t item_ranges = std::min(shape.items, 1 + (kParts - 1) / (shape.group * blocks));
    const std::vector<WeightGradPart> parts = parts_of(shape, item_ranges, blocks);
    const int64_t number = static_cast<int64_t>(parts.size()), tasks = std::min(number, 4 * kParts);
    int64_t scratch_size = 0;
    for (const WeightGradPart& part : parts) {
      scratch_size = std::max(scratch_size, kernels.weight_scratch_size(shape, part));
    }
    // the first range of items is summed up in the result itself
    const Workspace::Lease memory(api, &workspace, {tasks, scratch_size}, {item_ranges - 1, count});
    float* const sums = memory.data() + tasks * scratch_size;
    in_parts(api, context, tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        float* const scratch = memory.data() + task * scratch_size;
        for (int64_t i = number * task / tasks; i < number * (task + 1) / tasks; ++i) {
          const int64_t range = i / (shape.group * blocks);
          float* const to = range == 0 ? result : sums + (range - 1) * count;
          kernels.add_weight_grad(shape, parts[static_cast<size_t>(i)], bottom, top_diff, scratch, to);
        }
      }
    });
    in_parts(api, context, count, 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t range = 0; range + 1 < item_ranges; ++range) {
        const float* const more = sums + range * count;
        for (int64_t i = begin; i < end; ++i) result[i] += more[i];
      }
    });
  }
};

struct ConvBottomGrad {
  static constexpr const char* kName = "ConvBottomGrad";
  static constexpr size_t kInputs = 2, kOutputs = 1;
  const OrtApi* api;
  Window window;
  int64_t height, width;
  mutable Workspace workspace;

  ConvBottomGrad(const OrtApi* given, const OrtKernelInfo* info) : api(given), window(given, kName, info) {
    height = integer_attribute(api, info, "height");
    width = integer_attribute(api, info, "width");
    for (const ConvAxis& axis : {window.rows, window.columns}) {
      if (axis.stride != 1 || axis.pad > (axis.kernel - 1) * axis.dilation || height < 0 || width < 0) {
        window.fail(": strides of 1, pads that windows reach over, and sizes from 0 on were needed");
      }
    }
  }

  // The axis as the diff sees it: the window looks the other way, and its positions are the places of the bottom.
  ConvAxis turned(ConvAxis axis, int64_t positions, int64_t size) const {
    axis.pad = (axis.kernel - 1) * axis.dilation - axis.pad;
    return window.sized(axis, positions, size);
  }

  void compute(OrtKernelContext* context) const {
    const Tensor top_diff = input_of(api, context, 0);
    const Tensor weight = input_of(api, context, 1);
    const std::vector<int64_t>&dy = top_diff.dims, &w = weight.dims;
    const int64_t group = window.group;
    if (dy.size() != 4 || w.size() != 4 || dy[1] % group != 0 || w[0] != dy[1] || w[2] != window.rows.kernel ||
        w[3] != window.columns.kernel) {
      window.fail(": a diff N×O×H'×W' and a weight O×C/group×kernel_h×kernel_w, O divided by the group, were "
                  "needed");
    }
    const int64_t channels = checked_product(api, w[1], group);
    const int64_t planes = checked_product(api, dy[0], channels);
    const int64_t count = checked_product(api, checked_product(api, planes, height), width);
    float* const result = output_of(api, context, 0, {dy[0], channels, height, width});
    if (count == 0 || top_diff.count == 0) {
      std::fill(result, result + count, 0.f);
      return;
    }
    const ConvShape shape = {dy[0], group, w[1], dy[1] / group, turned(window.rows, dy[2], height),
                             turned(window.columns, dy[3], width)};
    window.check_copy(shape.outputs, shape.rows, shape.columns);
    spread(context, shape, top_diff.data, weight.data, result);
  }

  void spread(OrtKernelContext* context, const ConvShape& shape, const float* top_diff, const float* weight,
              float* result) const {
    const ConvGradKernels& kernels = conv_grad_kernels(best_build());
    const int64_t panels = kernels.panels(shape), panel_size = kernels.panel_size(shape);
    const int64_t images = checked_product(api, shape.items, shape.group), tasks = std::min<int64_t>(64, images);
    const int64_t scratch_size = kernels.bottom_scratch_size(shape);
    const Workspace::Lease memory(api, &workspace, {panels, panel_size}, {tasks, scratch_size});
    float* const packed = memory.data();
    in_parts(api, context, panels, 1 + (1 << 14) / panel_size, [&](int64_t begin, int64_t end) {
      kernels.pack_weights(shape, begin, end, weight, packed);
    });
    in_parts(api, context, tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        float* const scratch = packed + panels * panel_size + task * scratch_size;
        for (int64_t i = images * task / tasks; i < images * (task + 1) / tasks; ++i) {
          kernels.bottom_grad(shape, i / shape.group, i % shape.group, top_diff, packed, scratch, result);
        }
      }
    });
  }
};

}  // namespace

const OrtCustomOp* conv_weight_grad() { return custom_op<ConvWeightGrad>(); }

const OrtCustomOp* conv_bottom_grad() { return custom_op<ConvBottomGrad>(); }

}  // namespace caffeconv
