// ConvWeightGrad and ConvBottomGrad on the CPU. CMake compiles this file once per instruction set
// (CAFFECONV_ISA names the build). Everything here has internal linkage but the one function at the end.
//
//   weight_diff[o, c, k] = Σ top_diff[n, o, p] · bottom[n, c, stride·p + dilation·k - pad]
//   bottom_diff[n, c, q] = Σ weight[o, c, k] · top_diff[n, o, q + pad - dilation·k], where strides are 1
//
// Both are products of matrices whose left one is never written out: its rows are an image with zeros around, from another
// place for each row. A tile is kRows rows by one or two vectors of columns, whose sums stay in registers; the right matrix
// lies in panels as wide as a tile. For the weight a row is an element of the window, a tap, and a column an output; the
// sums are over positions. For the bottom a row is a place of it and a column a channel; the sums are over taps and outputs.
#include "conv_grad_cpu.h"

#include <cstring>

#include "lanes.h"

namespace caffeconv {
namespace {

// As many sums as there are registers, but for those that the factors need.
constexpr int kRows = kLanes == 16 ? 12 : 6;
constexpr int kPanel = 2 * kLanes;
constexpr int64_t kBlock = 192;  // positions that are copied at a time: whole rows, one at least

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

void fill_zeros(float* to, int64_t number) { memset(to, 0, static_cast<size_t>(number) * sizeof(float)); }

bool looks_beyond(const ConvAxis& axis) { return axis.pad > 0 || axis.reach > axis.size; }

// Planes of one item, and how far apart their rows and they themselves lie.
struct Image {
  const float* data;
  int64_t row, plane;
};

// The planes themselves, or where a window looks beyond them, a copy with zeros around.
Image padded(const ConvAxis& rows, const ConvAxis& columns, int64_t planes, const float* from, float* copy) {
  if (!looks_beyond(rows) && !looks_beyond(columns)) return {from, columns.size, rows.size * columns.size};
  float* to = copy;
  const int64_t left = smaller(columns.pad, columns.reach);
  const int64_t inside = smaller(columns.size, columns.reach - left);
  for (int64_t i = 0; i < planes; ++i, from += rows.size * columns.size) {
    for (int64_t row = -rows.pad; row < rows.reach - rows.pad; ++row, to += columns.reach) {
      if (row < 0 || row >= rows.size) {
        fill_zeros(to, columns.reach);
        continue;
      }
      fill_zeros(to, left);
      memcpy(to + left, from + row * columns.size, static_cast<size_t>(inside) * sizeof(float));
      fill_zeros(to + left + inside, columns.reach - left - inside);
    }
  }
  return {copy, columns.reach, rows.reach * columns.reach};
}

// ---- The weight's diff --------------------------------------------------------------------------------------------
// How a part's work and its scratch are laid out.
struct Layout {
  int64_t taps, tiles, panels, block_rows;
  int64_t sums, image, diffs;  // floats
};

Layout layout_of(const ConvShape& shape, const WeightGradPart& part) {
  Layout layout;
  layout.taps = part.channels * shape.rows.kernel * shape.columns.kernel;
  layout.tiles = divided_up(layout.taps, kRows);
  layout.panels = divided_up(shape.outputs, kPanel);
  const int64_t rows = kBlock / shape.columns.positions;
  layout.block_rows = smaller(shape.rows.positions, rows > 0 ? rows : 1);
  layout.sums = layout.panels * layout.tiles * kRows * kPanel;
  layout.image = part.channels * shape.rows.reach * shape.columns.reach;
  layout.diffs = layout.panels * layout.block_rows * shape.columns.positions * kPanel;
  return layout;
}

// kLanes outputs, at `number` positions: a vector of outputs for each position.
void turn(const float* from, int64_t plane, int64_t outputs, int64_t number, float* to) {
  int64_t position = 0;
  if (outputs == kLanes) {
    for (; position + kLanes <= number; position += kLanes) {
      Floats square[kLanes];
      for (int i = 0; i < kLanes; ++i) square[i] = load<Floats>(from + i * plane + position);
      transpose(square);
      for (int i = 0; i < kLanes; ++i) store(to + (position + i) * kPanel, square[i]);
    }
  }
  for (; position < number; ++position) {
    for (int64_t i = 0; i < kLanes; ++i) to[position * kPanel + i] = i < outputs ? from[i * plane + position] : 0.f;
  }
}

// A block's diffs: one panel of outputs after another, side by side for each position.
void copy_diffs(const ConvShape& shape, const float* from, int64_t number, float* to) {
  const int64_t plane = shape.rows.positions * shape.columns.positions;
  for (int64_t output = 0; output < shape.outputs; output += kPanel, to += number * kPanel) {
    for (int64_t half = 0; half < 2 && output + half * kLanes < shape.outputs; ++half) {
      const int64_t first = output + half * kLanes;
      turn(from + first * plane, plane, smaller(kLanes, shape.outputs - first), number, to + half * kLanes);
    }
  }
}

// One tile: adds to kRows × Vectors vectors of sums the products of the taps' images and a panel's diffs.
template <int Vectors>
void add_tile(const ConvAxis& columns, int64_t row_step, int64_t rows, const float* const (&images)[kRows],
              const float* diffs, float* sums) {
  Floats total[kRows][Vectors];
  const float* taps[kRows];
  for (int tap = 0; tap < kRows; ++tap) {
    taps[tap] = images[tap];
    for (int v = 0; v < Vectors; ++v) total[tap][v] = load<Floats>(sums + tap * kPanel + v * kLanes);
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0, place = 0; column < columns.positions; ++column, place += columns.stride, diffs += kPanel) {
      Floats diff[Vectors];
      for (int v = 0; v < Vectors; ++v) diff[v] = load<Floats>(diffs + v * kLanes);
      for (int tap = 0; tap < kRows; ++tap) {
        for (int v = 0; v < Vectors; ++v) total[tap][v] += taps[tap][place] * diff[v];
      }
    }
    for (int tap = 0; tap < kRows; ++tap) taps[tap] += row_step;
  }
  for (int tap = 0; tap < kRows; ++tap) {
    for (int v = 0; v < Vectors; ++v) store(sums + tap * kPanel + v * kLanes, total[tap][v]);
  }
}

// Where a tap begins in the image.
int64_t offset_of(const ConvShape& shape, const Image& image, int64_t tap) {
  const int64_t kernel = shape.rows.kernel * shape.columns.kernel;
  const int64_t row = tap % kernel / shape.columns.kernel * shape.rows.dilation;
  const int64_t column = tap % shape.columns.kernel * shape.columns.dilation;
  return tap / kernel * image.plane + row * image.row + column;
}

// Adds what `rows` rows of positions give, from the first one on.
void add_block(const ConvShape& shape, const Layout& layout, const Image& image, int64_t first, int64_t rows,
               const float* diffs, float* sums) {
  const int64_t row_step = shape.rows.stride * image.row;
  for (int64_t tile = 0; tile < layout.tiles; ++tile) {
    const float* taps[kRows];
    for (int64_t i = 0; i < kRows; ++i) {  // those beyond the last one repeat it, into sums that nobody reads
      taps[i] = image.data + first * row_step + offset_of(shape, image, smaller(tile * kRows + i, layout.taps - 1));
    }
    for (int64_t panel = 0; panel < layout.panels; ++panel) {
      float* const total = sums + (panel * layout.tiles + tile) * kRows * kPanel;
      const float* const own = diffs + panel * rows * shape.columns.positions * kPanel;
      if (shape.outputs - panel * kPanel <= kLanes) {
        add_tile<1>(shape.columns, row_step, rows, taps, own, total);
      } else {
        add_tile<2>(shape.columns, row_step, rows, taps, own, total);
      }
    }
  }
}

int64_t weight_scratch_size(const ConvShape& shape, const WeightGradPart& part) {
  const Layout layout = layout_of(shape, part);
  return layout.sums + layout.image + layout.diffs;
}

void add_weight_grad(const ConvShape& shape, const WeightGradPart& part, const float* bottom, const float* top_diff,
                     float* scratch, float* weight_diff) {
  const Layout layout = layout_of(shape, part);
  float* const sums = scratch;
  float* const copy = sums + layout.sums;
  float* const diffs = copy + layout.image;
  const int64_t width = shape.columns.positions;
  fill_zeros(sums, layout.sums);
  for (int64_t item = part.first_item; item < part.first_item + part.items; ++item) {
    const int64_t channel = (item * shape.group + part.group) * shape.channels + part.first_channel;
    const float* const own = bottom + channel * shape.rows.size * shape.columns.size;
    const Image image = padded(shape.rows, shape.columns, part.channels, own, copy);
    const float* const from = top_diff + (item * shape.group + part.group) * shape.outputs * shape.rows.positions * width;
    for (int64_t row = 0; row < shape.rows.positions; row += layout.block_rows) {
      const int64_t rows = smaller(layout.block_rows, shape.rows.positions - row);
      copy_diffs(shape, from + row * width, rows * width, diffs);
      add_block(shape, layout, image, row, rows, diffs, sums);
    }
  }
  const int64_t kernel = shape.rows.kernel * shape.columns.kernel;
  for (int64_t output = 0; output < shape.outputs; ++output) {
    const float* const own = sums + output / kPanel * layout.tiles * kRows * kPanel + output % kPanel;
    float* const to = weight_diff + ((part.group * shape.outputs + output) * shape.channels + part.first_channel) * kernel;
    for (int64_t tap = 0; tap < layout.taps; ++tap) to[tap] = own[tap * kPanel];
  }
}

// ---- The bottom's diff --------------------------------------------------------------------------
int64_t panels_of_group(const ConvShape& shape) { return divided_up(shape.channels, kPanel); }

int64_t panels(const ConvShape& shape) { return shape.group * panels_of_group(shape); }

int64_t panel_size(const ConvShape& shape) { return shape.outputs * shape.rows.kernel * shape.columns.kernel * kPanel; }

int64_t bottom_scratch_size(const ConvShape& shape) { return shape.outputs * shape.rows.reach * shape.columns.reach; }

// Each panel is kernel × outputs × kPanel channels, the window turned round: its last element comes first.
void pack_weights(const ConvShape& shape, int64_t begin, int64_t end, const float* weight, float* packed) {
  const int64_t kernel = shape.rows.kernel * shape.columns.kernel;
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t group = panel / panels_of_group(shape), first = panel % panels_of_group(shape) * kPanel;
    const int64_t channels = smaller(kPanel, shape.channels - first);
    float* const to = packed + panel * panel_size(shape);
    if (channels < kPanel) fill_zeros(to, panel_size(shape));
    for (int64_t output = 0; output < shape.outputs; ++output) {
      const float* from = weight + ((group * shape.outputs + output) * shape.channels + first) * kernel;
      for (int64_t channel = 0; channel < channels; ++channel, from += kernel) {
        for (int64_t k = 0; k < kernel; ++k) to[((kernel - 1 - k) * shape.outputs + output) * kPanel + channel] = from[k];
      }
    }
  }
}

// Rows of a window, from `begin` to before `end`.
struct Span {
  int64_t begin, end;
};

// The rows that see more than zeros from somewhere between two rows of places.
Span seen_rows(const ConvAxis& rows, int64_t first, int64_t last) {
  const int64_t before = rows.pad - last, after = rows.pad + rows.size - first;
  return {before > 0 ? smaller(rows.kernel, divided_up(before, rows.dilation)) : 0,
          after > 0 ? smaller(rows.kernel, divided_up(after, rows.dilation)) : 0};
}

// The sums of one tile over some rows of the window; `places` are where the window begins for each of the tile's rows.
template <int Vectors>
void sum_tile(const ConvShape& shape, const Image& image, const float* const (&places)[kRows], const Span& rows,
              const float* weights, float (&total)[kRows][kPanel]) {
  Floats sums[kRows][Vectors] = {};
  weights += rows.begin * shape.columns.kernel * shape.outputs * kPanel;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    for (int64_t column = 0; column < shape.columns.kernel; ++column) {
      int64_t offset = row * shape.rows.dilation * image.row + column * shape.columns.dilation;
      for (int64_t output = 0; output < shape.outputs; ++output, offset += image.plane, weights += kPanel) {
        Floats weight[Vectors];
        for (int v = 0; v < Vectors; ++v) weight[v] = load<Floats>(weights + v * kLanes);
        for (int place = 0; place < kRows; ++place) {
          for (int v = 0; v < Vectors; ++v) sums[place][v] += places[place][offset] * weight[v];
        }
      }
    }
  }
  for (int place = 0; place < kRows; ++place) {
    for (int v = 0; v < Vectors; ++v) store(total[place] + v * kLanes, sums[place][v]);
  }
}

// The sums of a tile, a row of places for each channel; `left` places are left of the plane.
void store_tile(const float (&total)[kRows][kPanel], int64_t channels, int64_t plane, int64_t left, float* to) {
  int64_t channel = 0;
  if (kRows <= kLanes && left >= kLanes) {  // writes beyond the tile, where the next one will
    for (; channel + kLanes <= channels; channel += kLanes) {
      Floats square[kLanes] = {};
      for (int i = 0; i < kRows && i < kLanes; ++i) square[i] = load<Floats>(total[i] + channel);
      transpose(square);
      for (int i = 0; i < kLanes; ++i) store(to + (channel + i) * plane, square[i]);
    }
  }
  const int64_t places = smaller(kRows, left);
  for (; channel < channels; ++channel) {
    for (int64_t i = 0; i < places; ++i) to[channel * plane + i] = total[i][channel];
  }
}

void bottom_grad(const ConvShape& shape, int64_t item, int64_t group, const float* top_diff, const float* packed,
                 float* scratch, float* bottom_diff) {
  const ConvAxis &rows = shape.rows, &columns = shape.columns;
  const int64_t image_of_item = item * shape.group + group, plane = rows.positions * columns.positions;
  const float* const from = top_diff + image_of_item * shape.outputs * rows.size * columns.size;
  const Image image = padded(rows, columns, shape.outputs, from, scratch);
  float* const to = bottom_diff + image_of_item * shape.channels * plane;
  for (int64_t panel = 0; panel < panels_of_group(shape); ++panel) {
    const int64_t first = panel * kPanel, channels = smaller(kPanel, shape.channels - first);
    const float* const weights = packed + (group * panels_of_group(shape) + panel) * panel_size(shape);
    for (int64_t place = 0; place < plane; place += kRows) {
      const float* places[kRows];
      for (int64_t i = 0; i < kRows; ++i) {  // those beyond the last one repeat it
        const int64_t number = smaller(place + i, plane - 1);
        places[i] = image.data + number / columns.positions * image.row + number % columns.positions;
      }
      const int64_t last = smaller(place + kRows, plane) - 1;
      const Span seen = seen_rows(rows, place / columns.positions, last / columns.positions);
      float total[kRows][kPanel];
      if (channels <= kLanes) {
        sum_tile<1>(shape, image, places, seen, weights, total);
      } else {
        sum_tile<2>(shape, image, places, seen, weights, total);
      }
      store_tile(total, channels, plane, plane - place, to + first * plane + place);
    }
  }
}

}  // namespace

const ConvGradKernels& CAFFECONV_JOIN(conv_grad_kernels_, CAFFECONV_ISA)() {
  static constexpr ConvGradKernels kernels = {
      CAFFECONV_TEXT(CAFFECONV_ISA), weight_scratch_size, add_weight_grad, panels, panel_size, pack_weights,
      bottom_scratch_size, bottom_grad};
  return kernels;
}

}  // namespace caffeconv
