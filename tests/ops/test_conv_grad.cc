// The kernels of a convolution's diffs against plain loops in float64, every build that this processor can run. Every
// buffer has exactly the size it must have, so that AddressSanitizer and valgrind see the first byte beyond it. Exit
// status 1 at the first failure.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>

#include "conv_grad_cpu.h"

using namespace caffeconv;

namespace {

using Floats = std::unique_ptr<float[]>;

Floats numbers(std::mt19937& random, int64_t count) {
  Floats values(new float[static_cast<size_t>(count)]);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(static_cast<int>(random() % 17) - 8) / 8.f;
  return values;
}

int64_t drawn(std::mt19937& random, int64_t least, int64_t greatest) {
  return least + static_cast<int64_t>(random() % static_cast<uint32_t>(greatest - least + 1));
}

// Windows may reach beyond the padded bottom, and may leave some of it unseen.
ConvAxis axis_of(std::mt19937& random, int64_t greatest_stride) {
  ConvAxis axis = {drawn(random, 1, 5), drawn(random, 1, greatest_stride), 0, drawn(random, 1, 2), 0, 0, 0};
  axis.pad = drawn(random, 0, (axis.kernel - 1) * axis.dilation);
  axis.size = drawn(random, 1, 40);
  axis.positions = drawn(random, 1, 40);
  axis.reach = (axis.positions - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1;
  return axis;
}

// f(item, group, output, channel, position in rows, in columns, element of the window, its place in the bottom)
template <typename F>
void for_each_product(const ConvShape& shape, F f) {
  const ConvAxis &rows = shape.rows, &columns = shape.columns;
  for (int64_t n = 0; n < shape.items * shape.group; ++n) {
    for (int64_t p = 0; p < rows.positions * columns.positions; ++p) {
      for (int64_t k = 0; k < rows.kernel * columns.kernel; ++k) {
        const int64_t row = p / columns.positions * rows.stride + k / columns.kernel * rows.dilation - rows.pad;
        const int64_t column = p % columns.positions * columns.stride + k % columns.kernel * columns.dilation - columns.pad;
        if (row < 0 || row >= rows.size || column < 0 || column >= columns.size) continue;
        for (int64_t o = 0; o < shape.outputs; ++o) {
          for (int64_t c = 0; c < shape.channels; ++c) f(n, o, c, p, k, row * columns.size + column);
        }
      }
    }
  }
}

void expect_close(const float* values, const double* expected, int64_t count, const char* what, const char* build) {
  for (int64_t i = 0; i < count; ++i) {
    if (std::fabs(values[i] - expected[i]) <= 1e-4 * (1 + std::fabs(expected[i]))) continue;
    fprintf(stderr, "%s, %s: element %lld is %g; %g was needed\n", what, build, static_cast<long long>(i),
            static_cast<double>(values[i]), expected[i]);
    exit(1);
  }
}

void test_weight_grad(std::mt19937& random) {
  const ConvShape shape = {drawn(random, 1, 3), drawn(random, 1, 2), drawn(random, 1, 5), drawn(random, 1, 40),
                           axis_of(random, 3), axis_of(random, 3)};
  const int64_t seen = shape.rows.size * shape.columns.size, plane = shape.rows.positions * shape.columns.positions;
  const int64_t kernel = shape.rows.kernel * shape.columns.kernel, images = shape.items * shape.group;
  const int64_t count = shape.group * shape.outputs * shape.channels * kernel;
  const Floats bottom = numbers(random, images * shape.channels * seen);
  const Floats top_diff = numbers(random, images * shape.outputs * plane);
  std::unique_ptr<double[]> expected(new double[static_cast<size_t>(count)]());
  for_each_product(shape, [&](int64_t n, int64_t o, int64_t c, int64_t p, int64_t k, int64_t place) {
    const int64_t output = n % shape.group * shape.outputs + o;
    expected[(output * shape.channels + c) * kernel + k] +=
        static_cast<double>(top_diff[(n * shape.outputs + o) * plane + p]) * bottom[(n * shape.channels + c) * seen + place];
  });
  Isa builds[3];
  const int number = runnable_builds(builds);
  for (int b = 0; b < number; ++b) {
    const ConvGradKernels& kernels = conv_grad_kernels(builds[b]);
    const Floats result = numbers(random, count);
    for (int64_t group = 0; group < shape.group; ++group) {
      for (const int64_t first : {int64_t{0}, shape.channels / 2}) {  // in two blocks of channels
        const WeightGradPart part = {group, first, first == 0 ? std::max<int64_t>(shape.channels / 2, 1)
                                                              : shape.channels - first, 0, shape.items};
        const Floats scratch = numbers(random, kernels.weight_scratch_size(shape, part));
        kernels.add_weight_grad(shape, part, bottom.get(), top_diff.get(), scratch.get(), result.get());
      }
    }
    expect_close(result.get(), expected.get(), count, "weight_diff", kernels.name);
  }
}

void test_bottom_grad(std::mt19937& random) {
  ConvShape shape = {drawn(random, 1, 3), drawn(random, 1, 2), drawn(random, 1, 40), drawn(random, 1, 5),
                     axis_of(random, 1), axis_of(random, 1)};
  const int64_t seen = shape.rows.size * shape.columns.size, plane = shape.rows.positions * shape.columns.positions;
  const int64_t kernel = shape.rows.kernel * shape.columns.kernel, images = shape.items * shape.group;
  const int64_t count = images * shape.channels * seen;
  const Floats weight = numbers(random, shape.group * shape.outputs * shape.channels * kernel);
  const Floats top_diff = numbers(random, images * shape.outputs * plane);
  std::unique_ptr<double[]> expected(new double[static_cast<size_t>(count)]());
  for_each_product(shape, [&](int64_t n, int64_t o, int64_t c, int64_t p, int64_t k, int64_t place) {
    const int64_t output = n % shape.group * shape.outputs + o;
    expected[(n * shape.channels + c) * seen + place] +=
        static_cast<double>(top_diff[(n * shape.outputs + o) * plane + p]) * weight[(output * shape.channels + c) * kernel + k];
  });
  for (ConvAxis* axis : {&shape.rows, &shape.columns}) {  // as the top's diff sees it
    axis->pad = (axis->kernel - 1) * axis->dilation - axis->pad;
    std::swap(axis->size, axis->positions);
    axis->reach = axis->positions - 1 + (axis->kernel - 1) * axis->dilation + 1;
  }
  Isa builds[3];
  const int number = runnable_builds(builds);
  for (int b = 0; b < number; ++b) {
    const ConvGradKernels& kernels = conv_grad_kernels(builds[b]);
    const int64_t panels = kernels.panels(shape);
    const Floats packed = numbers(random, panels * kernels.panel_size(shape));
    kernels.pack_weights(shape, 0, panels / 2, weight.get(), packed.get());
    kernels.pack_weights(shape, panels / 2, panels, weight.get(), packed.get());
    const Floats result = numbers(random, count);
    const Floats scratch = numbers(random, kernels.bottom_scratch_size(shape));
    for (int64_t i = 0; i < images; ++i) {
      kernels.bottom_grad(shape, i / shape.group, i % shape.group, top_diff.get(), packed.get(), scratch.get(), result.get());
    }
    expect_close(result.get(), expected.get(), count, "bottom_diff", kernels.name);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::string(argv[1]) == "--quick";  // for valgrind
  std::mt19937 random(1);
  for (int i = 0; i < (quick ? 3 : 60); ++i) {
    test_weight_grad(random);
    test_bottom_grad(random);
  }
  printf("a convolution's diffs: all passed\n");
  return 0;
}
