// InfogainLoss on the CPU. CMake compiles this file once per instruction set (CAFFECONV_ISA names the build), and
// infogain_loss.cc picks one at run time. Everything here has internal linkage but the one function at the end.
//
// Two ways through the scores:
//   rows   one prediction at a time, a vector holds neighbouring classes; for many classes on the last axis.
//   lanes  a block of predictions at a time, a vector holds neighbouring predictions; for spatial scores, and for few
//          classes. The block is copied to a buffer that stays in the cache: a class's plane often is a power of two
//          bytes away from the next, and then all of them compete for the same few cache lines. Classes that lie side
//          by side are turned on the way, in squares of vectors.
// Both read the scores from memory once.
#include "infogain_loss_cpu.h"

#include <cstdlib>
#include <utility>

#include "isa.h"
#include "lanes.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace caffeconv {
namespace {

#if defined(__GNUC__)
#define CAFFECONV_MEMBER inline __attribute__((always_inline))
#else
#define CAFFECONV_MEMBER inline
#endif

struct Half {
  uint16_t bits;
};

constexpr int64_t kRun = 64;  // vectors summed up before their sum joins the total: rounding grows with the terms added

}  // namespace

template <>
struct Integers<Floats> {
  using type = Ints;
  using unsigned_type = UnsignedInts;
};

namespace {

template <typename V>
constexpr int lanes_of() {
  return static_cast<int>(sizeof(V) / sizeof(float));
}

// ---- Loads and stores ---------------------------------------------------------------------------------------------
CAFFECONV_HD float to_float(float value) { return value; }

CAFFECONV_HD float to_float(Half value) {
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fffu) << 13;
  float result = bits_of<float>(magnitude) * 5.192296858534828e33f;  // 2^112: half's exponent bias to float's
  if (magnitude >= (0x7c00u << 13)) result = bits_of<float>(magnitude | 0x7f800000u);
  return bits_of<float>(bits_of<uint32_t>(result) | static_cast<uint32_t>(value.bits & 0x8000u) << 16);
}

CAFFECONV_HD void put(float* to, float value) { *to = value; }

// To nearest, ties to even.
CAFFECONV_HD void put(Half* to, float value) {
  const uint32_t bits = bits_of<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t result;
  if (magnitude > 0x7f800000u) {
    result = 0x7e00u;
  } else if (magnitude >= 0x47800000u) {  // 65536, or 65520 and above after rounding below
    result = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // below the smallest normal half: let the float adder round
    result = bits_of<uint32_t>(bits_of<float>(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    result = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  to->bits = static_cast<uint16_t>(sign | result);
}

template <typename V>
CAFFECONV_HD V load(const Half* from) {
#if defined(__AVX512F__)
  if constexpr (lanes_of<V>() == 16) {
    __m256i bits;
    memcpy(&bits, from, sizeof(bits));
    return bits_of<V>(_mm512_cvtph_ps(bits));
  }
#elif defined(__F16C__)
  if constexpr (lanes_of<V>() == 8) {
    __m128i bits;
    memcpy(&bits, from, sizeof(bits));
    return bits_of<V>(_mm256_cvtph_ps(bits));
  }
#endif
  float values[lanes_of<V>()];
  for (int k = 0; k < lanes_of<V>(); ++k) values[k] = to_float(from[k]);
  return load<V>(values);
}

template <typename V>
CAFFECONV_HD void store(Half* to, V value) {
#if defined(__AVX512F__)
  if constexpr (lanes_of<V>() == 16) {
    const __m256i bits = _mm512_cvtps_ph(bits_of<__m512>(value), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    memcpy(to, &bits, sizeof(bits));
    return;
  }
#elif defined(__F16C__)
  if constexpr (lanes_of<V>() == 8) {
    const __m128i bits = _mm256_cvtps_ph(bits_of<__m256>(value), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    memcpy(to, &bits, sizeof(bits));
    return;
  }
#endif
  float values[lanes_of<V>()];
  store(values, value);
  for (int k = 0; k < lanes_of<V>(); ++k) put(to + k, values[k]);
}

// The vector that ends with the last of `count` values; 0 in lanes that would lie before the first.
template <typename V, typename S>
CAFFECONV_HD V load_tail(const S* from, int64_t count) {
  constexpr int lanes = lanes_of<V>();
  if (count >= lanes) return load<V>(from + count - lanes);
  float values[lanes] = {};
  for (int64_t k = 0; k < count; ++k) values[lanes - count + k] = to_float(from[k]);
  return load<V>(values);
}

template <typename V, typename S>
CAFFECONV_HD void store_tail(S* to, V value, int64_t count) {
  constexpr int lanes = lanes_of<V>();
  if (count >= lanes) return store(to + count - lanes, value);
  float values[lanes];
  store(values, value);
  for (int64_t k = 0; k < count; ++k) put(to + k, values[lanes - count + k]);
}

struct Masks {
  int32_t bits[2 * kLanes];

  constexpr Masks() : bits() {
    for (int k = kLanes; k < 2 * kLanes; ++k) bits[k] = -1;
  }
};

// All bits in the last n lanes, none in the others.
CAFFECONV_HD Ints last_lanes(int64_t n) {
  static constexpr Masks masks;
  Ints mask;
  memcpy(&mask, masks.bits + n, sizeof(mask));
  return mask;
}

template <typename V>
CAFFECONV_HD V broadcast(float value) {
  return V{} + value;
}

template <typename V>
CAFFECONV_HD float add_lanes(V value) {
  float values[lanes_of<V>()];
  store(values, value);
  for (int n = lanes_of<V>() / 2; n > 0; n /= 2) {
    for (int k = 0; k < n; ++k) values[k] += values[k + n];
  }
  return values[0];
}

CAFFECONV_HD double sum_of(const float* values, int64_t n) {
  double sums[4] = {};
  int64_t k = 0;
  for (; k + 4 <= n; k += 4) {
    for (int u = 0; u < 4; ++u) sums[u] += values[k + u];
  }
  for (; k < n; ++k) sums[0] += values[k];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

CAFFECONV_HD bool any_lane(Ints mask) {
  int32_t values[kLanes];
  memcpy(values, &mask, sizeof(mask));
  int32_t any = 0;
  for (int k = 0; k < kLanes; ++k) any |= values[k];
  return any != 0;
}

template <typename V>
CAFFECONV_HD float highest_lane(V value) {
  float values[lanes_of<V>()];
  store(values, value);
  float highest = values[0];
  for (int k = 1; k < lanes_of<V>(); ++k) highest = values[k] > highest ? values[k] : highest;
  return highest;
}

template <typename V>
CAFFECONV_HD float lowest_lane(V value) {
  float values[lanes_of<V>()];
  store(values, value);
  for (int n = lanes_of<V>() / 2; n > 0; n /= 2) {
    for (int k = 0; k < n; ++k) values[k] = values[k + n] < values[k] ? values[k + n] : values[k];
  }
  return values[0];
}

// Where class 0 of a prediction is.
CAFFECONV_HD int64_t offset_of(const InfogainShape& shape, int64_t prediction) {
  return prediction / shape.inner * shape.classes * shape.inner + prediction % shape.inner;
}

// ---- Rows ---------------------------------------------------------------------------------------------------------
// The classes of one prediction. V is Floats, with neighbouring classes side by side, or float, `stride` apart.
template <typename V, typename S>
struct Row {
  const S* x;
  int64_t stride;
  int64_t classes;

  CAFFECONV_MEMBER V at(int64_t l) const {
    if constexpr (lanes_of<V>() == 1) {
      return to_float(x[l * stride]);
    } else {
      return load<V>(x + l);
    }
  }
  CAFFECONV_MEMBER V tail() const { return load_tail<V>(x, classes); }
};

template <typename V, typename S>
CAFFECONV_HD float highest_of(const Row<V, S>& row) {
  constexpr int lanes = lanes_of<V>();
  V highest[4] = {broadcast<V>(to_float(row.x[0])), highest[0], highest[0], highest[0]};
  int64_t l = 0;
  for (; l + 4 * lanes <= row.classes; l += 4 * lanes) {
    for (int u = 0; u < 4; ++u) {
      const V x = row.at(l + u * lanes);
      highest[u] = x > highest[u] ? x : highest[u];
    }
  }
  for (; l + lanes <= row.classes; l += lanes) {
    const V x = row.at(l);
    highest[0] = x > highest[0] ? x : highest[0];
  }
  for (int u = 1; u < 4; ++u) highest[0] = highest[u] > highest[0] ? highest[u] : highest[0];
  if constexpr (lanes > 1) {
    if (l < row.classes) {
      const V x = last_lanes(row.classes - l) ? row.tail() : highest[0];
      highest[0] = x > highest[0] ? x : highest[0];
    }
  }
  return highest_lane(highest[0]);
}

struct RowSums {
  SoftmaxSums<float> softmax;
  float h;  // Σ H[y,l]
};

template <typename V, typename S>
CAFFECONV_HD RowSums sums_of(const Row<V, S>& row, const float* h_row, float highest) {
  constexpr int lanes = lanes_of<V>();
  SoftmaxSums<V> sums[2] = {};
  V h_sum[2] = {};
  const V top = broadcast<V>(highest);
  const int64_t whole = row.classes / lanes * lanes;
  int64_t l = 0;
  while (l < whole) {
    const int64_t end = l + kRun * lanes < whole ? l + kRun * lanes : whole;
    SoftmaxSums<V> run[2] = {};
    V h_run[2] = {};
    const auto add = [&](int u, int64_t at) {
      const V d = row.at(at) - top;
      const V h = load<V>(h_row + at);
      add_class(run[u], d, exp_nonpositive(d), h);
      h_run[u] += h;
    };
    for (; l + 2 * lanes <= end; l += 2 * lanes) {
      add(0, l);
      add(1, l + lanes);
    }
    for (; l < end; l += lanes) add(0, l);
    for (int u = 0; u < 2; ++u) {
      add_sums(sums[u], run[u]);
      h_sum[u] += h_run[u];
    }
  }
  if constexpr (lanes > 1) {
    if (l < row.classes) {
      const Ints rest = last_lanes(row.classes - l);
      const V d = rest ? row.tail() - top : V{};
      const V h = rest ? load_tail<V>(h_row, row.classes) : V{};
      add_class(sums[1], d, exp_nonpositive(d), h);
      h_sum[1] += h;
      sums[1].ones -= rest ? V{} : broadcast<V>(1);  // the other lanes counted as ones
    }
  }
  sums[0].lowest = sums[1].lowest < sums[0].lowest ? sums[1].lowest : sums[0].lowest;
  return {{add_lanes(sums[0].ones + sums[1].ones), add_lanes(sums[0].rest + sums[1].rest),
           add_lanes(sums[0].dot + sums[1].dot), lowest_lane(sums[0].lowest)},
          add_lanes(h_sum[0] + h_sum[1])};
}

// Σ H[y,l]·log(max(p_l, 1e-20)), term by term.
template <typename S>
CAFFECONV_HD float clamped_dot(const S* x, int64_t stride, int64_t classes, const float* h_row, float highest,
                               float log_z) {
  double dot = 0;
  for (int64_t l = 0; l < classes; ++l) {
    dot += h_row[l] * log_softmax_clamped(to_float(x[l * stride]) - highest, log_z);
  }
  return static_cast<float>(dot);
}

// `active`: the label is legal. Returns the loss of one prediction and writes its row of the output.
template <typename V, typename S>
CAFFECONV_HD float softmax_row(const InfogainJob& job, const Row<V, S>& row, const float* h_row, bool active, S* out) {
  constexpr int lanes = lanes_of<V>();
  const float highest = highest_of(row);
  const RowSums sums = sums_of(row, h_row, highest);
  const float log_z = log_of_z(sums.softmax);
  float loss = 0;
  if (active && job.want_loss) {
    const bool clamped = !(sums.softmax.lowest - log_z >= kLogThreshold);
    loss = clamped ? -clamped_dot(row.x, row.stride, row.classes, h_row, highest, log_z)
                   : log_z * sums.h - sums.softmax.dot;
  }
  if (job.output == Output::kNone) return loss;

  const bool gradient = job.output == Output::kGradient;
  const float inverse = 1.f / z_of(sums.softmax);
  const float p_scale = gradient ? inverse * sums.h * job.gradient_scale : inverse;
  const float h_scale = gradient ? job.gradient_scale : 0.f;
  if (gradient && !active) {
    for (int64_t l = 0; l < row.classes; ++l) put(out + l * row.stride, 0.f);
    return loss;
  }
  int64_t l = 0;
  for (; l + lanes <= row.classes; l += lanes) {
    const V p = exp_nonpositive(row.at(l) - highest) * p_scale;
    const V h = gradient ? load<V>(h_row + l) * h_scale : V{};
    if constexpr (lanes == 1) {
      put(out + l * row.stride, p - h);
    } else {
      store(out + l, p - h);
    }
  }
  if constexpr (lanes > 1) {
    if (l < row.classes) {
      const V p = exp_nonpositive(row.tail() - highest) * p_scale;
      const V h = gradient ? load_tail<V>(h_row, row.classes) * h_scale : V{};
      store_tail(out, p - h, row.classes);
    }
  }
  return loss;
}

// The form before 2017: the bottom holds probabilities.
template <typename V, typename S>
CAFFECONV_HD float probability_row(const InfogainJob& job, const Row<V, S>& row, const float* h_row, bool active,
                                   S* out) {
  constexpr int lanes = lanes_of<V>();
  float loss = 0;
  int64_t l = 0;
  if (active && job.want_loss) {
    V dot[2] = {};
    for (; l + 2 * lanes <= row.classes; l += 2 * lanes) {
      for (int u = 0; u < 2; ++u) dot[u] += load<V>(h_row + l + u * lanes) * log_clamped(row.at(l + u * lanes));
    }
    loss = -add_lanes(dot[0] + dot[1]);
    for (; l < row.classes; ++l) loss -= h_row[l] * log_clamped(to_float(row.x[l * row.stride]));
  }
  if (job.output == Output::kNone) return loss;
  for (l = 0; l < row.classes; ++l) {
    const float p = to_float(row.x[l * row.stride]);
    float value = p;
    if (job.output == Output::kGradient) {
      value = active ? -job.gradient_scale * h_row[l] / (p < kThreshold ? kThreshold : p) : 0.f;
    }
    put(out + l * row.stride, value);
  }
  return loss;
}

template <typename V, typename S>
void run_rows(const InfogainJob& job, int64_t begin, int64_t end, InfogainPart* part) {
  const InfogainShape& shape = job.shape;
  for (int64_t i = begin; i < end; ++i) {
    const int32_t label = truncated_label(job.labels[i]);
    const LabelKind kind = label_kind(label, shape);
    part->valid += kind == LabelKind::kLegal;
    if (kind == LabelKind::kIllegal && part->bad_label < 0) part->bad_label = i;
    const bool active = kind == LabelKind::kLegal;
    if (!active && job.output == Output::kNone) continue;
    const int64_t offset = offset_of(shape, i);
    const Row<V, S> row = {static_cast<const S*>(job.scores) + offset, shape.inner, shape.classes};
    const float* h_row = job.h + (active ? label : 0) * shape.classes;
    S* out = job.out == nullptr ? nullptr : static_cast<S*>(job.out) + offset;
    part->loss +=
        shape.probabilities ? probability_row(job, row, h_row, active, out) : softmax_row(job, row, h_row, active, out);
  }
}

// ---- Lanes --------------------------------------------------------------------------------------------------------
// H[y,l] for a vector of labels y and one class l.
//
// FromTable: `columns` holds H's columns, and a permutation picks from it what a gather would fetch lane by lane.
#if defined(__AVX512F__)
template <int Width>
struct FromTable {
  const float* columns;
  __m512i label;
  __mmask16 bit5;
  __mmask16 bit6;

  CAFFECONV_MEMBER void take(const InfogainJob& job, const int32_t* labels) {
    columns = job.columns;
    label = _mm512_loadu_si512(labels);
    bit5 = _mm512_test_epi32_mask(label, _mm512_set1_epi32(32));
    bit6 = _mm512_test_epi32_mask(label, _mm512_set1_epi32(64));
  }
  CAFFECONV_MEMBER __m512 pick32(const float* table) const {
    return _mm512_permutex2var_ps(_mm512_loadu_ps(table), label, _mm512_loadu_ps(table + 16));
  }
  CAFFECONV_MEMBER __m512 pick64(const float* table) const {
    return _mm512_mask_blend_ps(bit5, pick32(table), pick32(table + 32));
  }
  CAFFECONV_MEMBER Floats at(int64_t l) const {
    const float* table = columns + l * Width;
    if constexpr (Width == 16) {
      return bits_of<Floats>(_mm512_permutexvar_ps(label, _mm512_loadu_ps(table)));
    } else if constexpr (Width == 32) {
      return bits_of<Floats>(pick32(table));
    } else if constexpr (Width == 64) {
      return bits_of<Floats>(pick64(table));
    } else {
      return bits_of<Floats>(_mm512_mask_blend_ps(bit6, pick64(table), pick64(table + 64)));
    }
  }
};
#elif defined(__AVX2__)
template <int Width>
struct FromTable {
  const float* columns;
  __m256i label;
  __m256 bit3;  // as sign bits
  __m256 bit4;

  CAFFECONV_MEMBER void take(const InfogainJob& job, const int32_t* labels) {
    columns = job.columns;
    label = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(labels));
    bit3 = _mm256_castsi256_ps(_mm256_slli_epi32(label, 28));
    bit4 = _mm256_castsi256_ps(_mm256_slli_epi32(label, 27));
  }
  CAFFECONV_MEMBER __m256 pick8(const float* table) const {
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), label);
  }
  CAFFECONV_MEMBER __m256 pick16(const float* table) const {
    return _mm256_blendv_ps(pick8(table), pick8(table + 8), bit3);
  }
  CAFFECONV_MEMBER Floats at(int64_t l) const {
    const float* table = columns + l * Width;
    if constexpr (Width == 8) {
      return bits_of<Floats>(pick8(table));
    } else if constexpr (Width == 16) {
      return bits_of<Floats>(pick16(table));
    } else {
      return bits_of<Floats>(_mm256_blendv_ps(pick16(table), pick16(table + 16), bit4));
    }
  }
};
#endif

struct FromRows {
  const float* h;
  int32_t offset[kLanes];

  CAFFECONV_MEMBER void take(const InfogainJob& job, const int32_t* labels) {
    h = job.h;
    for (int k = 0; k < kLanes; ++k) offset[k] = labels[k] * static_cast<int32_t>(job.shape.classes);
  }
  CAFFECONV_MEMBER Floats at(int64_t l) const {
#if defined(__AVX512F__)
    return bits_of<Floats>(_mm512_i32gather_ps(_mm512_loadu_si512(offset), h + l, 4));
#elif defined(__AVX2__)
    return bits_of<Floats>(_mm256_i32gather_ps(h + l, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(offset)), 4));
#else
    float values[kLanes];
    for (int k = 0; k < kLanes; ++k) values[k] = h[l + offset[k]];
    return load<Floats>(values);
#endif
  }
};

constexpr int64_t kMaxBlock = 1024;          // predictions in one block, a multiple of kLanes
constexpr int64_t kBlockFloats = 16 * 1024;  // aim for this many scores in one block
constexpr int64_t kLargestBlock = 256 * 1024;
constexpr int64_t kTurnedFloats = 2 * 1024;  // where classes lie side by side, and no long runs are to be had
constexpr int64_t kMostTurned = 64;          // classes; more than that are taken as they lie
constexpr int64_t kAhead = 2;  // classes; what one block fetches for the next may not all arrive

int64_t block_width(const InfogainShape& shape) {
  if (shape.inner == 1) {
    // An odd number of vectors, so that columns do not compete for the same cache lines.
    const int64_t vectors = (kTurnedFloats / shape.classes / kLanes) | 1;
    return vectors * kLanes < kMaxBlock ? vectors * kLanes : kMaxBlock;
  }
  const int64_t width = kBlockFloats / shape.classes / kLanes * kLanes;
  return width < kLanes ? kLanes : width > kMaxBlock ? kMaxBlock : width;
}

struct Block {
  int64_t begin;  // first prediction
  int64_t count;
  int64_t width;       // count, rounded up to whole vectors
  const char* next;    // the next block's scores: class 0 of its first prediction
  int64_t next_class;  // bytes to the next class, and to the next prediction; 0 where there is no next block
  int64_t next_prediction;
  float* x;                   // classes × width: scores, then exponentials, then the output
  float* e;                   // where the exponentials go: x, or a second buffer where x is still needed
  int32_t label[kMaxBlock];   // 0 where not active
  int32_t active[kMaxBlock];  // all bits, or none
  float highest[kMaxBlock];
  float loss[kMaxBlock];
};

// The block's predictions, cut where a plane ends: f(first lane, how many, offset of their class 0 in the scores).
template <typename F>
CAFFECONV_HD void each_run(const InfogainShape& shape, const Block& block, F f) {
  for (int64_t lane = 0; lane < block.count;) {
    const int64_t i = block.begin + lane;
    const int64_t j = i % shape.inner;
    const int64_t rest = shape.inner - j;
    const int64_t n = rest < block.count - lane ? rest : block.count - lane;
    f(lane, n, offset_of(shape, i));
    lane += n;
  }
}

CAFFECONV_HD void prefetch(const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address);
#else
  static_cast<void>(address);
#endif
}

// label_kind without branches: all bits or none.
struct LabelBits {
  int32_t classes;
  int32_t has_ignore;
  int32_t ignore;

  explicit LabelBits(const InfogainShape& shape)
      : classes(static_cast<int32_t>(shape.classes)),
        has_ignore(shape.has_ignore_label ? -1 : 0),
        ignore(shape.ignore_label) {}
  CAFFECONV_MEMBER int32_t ignored(int32_t label) const { return label == ignore ? has_ignore : 0; }
  CAFFECONV_MEMBER int32_t inside(int32_t label) const { return ((label >= 0) & (label < classes)) ? -1 : 0; }
};

// Labels of the block; returns how many are legal.
CAFFECONV_HD int64_t take_labels(const InfogainJob& job, Block& block, InfogainPart* part) {
  const float* labels = job.labels + block.begin;
  const LabelBits bits(job.shape);
  int32_t legal = 0, illegal = 0;
  for (int64_t k = 0; k < block.count; ++k) {
    const int32_t label = truncated_label(labels[k]);
    const int32_t ignored = bits.ignored(label);
    const int32_t active = bits.inside(label) & ~ignored;
    block.label[k] = label & active;
    block.active[k] = active;
    legal -= active;
    illegal -= ~(active | ignored);
  }
  for (int64_t k = block.count; k < block.width; ++k) block.label[k] = block.active[k] = 0;
  part->valid += legal;
  if (illegal != 0 && part->bad_label < 0) {
    int64_t k = 0;
    while (label_kind(truncated_label(labels[k]), job.shape) != LabelKind::kIllegal) ++k;
    part->bad_label = block.begin + k;
  }
  return legal;
}

template <typename S>
void take_planes(const InfogainJob& job, Block& block) {
  const InfogainShape& shape = job.shape;
  const S* scores = static_cast<const S*>(job.scores);
  each_run(shape, block, [&](int64_t lane, int64_t n, int64_t offset) {
    float* __restrict highest = block.highest + lane;
    for (int64_t l = 0; l < shape.classes; ++l) {
      const S* __restrict from = scores + offset + l * shape.inner;
      // Each class is a short run of memory far from the last one; the processor finds out too late where it is.
      const S* ahead = l + kAhead < shape.classes ? from + kAhead * shape.inner : from;
      float* __restrict to = block.x + l * block.width + lane;
      int64_t k = 0;
      for (; k + kLanes <= n; k += kLanes) {
        prefetch(ahead + k);
        const Floats x = load<Floats>(from + k);
        const Floats before = l == 0 ? x : load<Floats>(highest + k);
        store(to + k, x);
        store(highest + k, x > before ? x : before);
      }
      for (; k < n; ++k) {
        const float x = to_float(from[k]);
        to[k] = x;
        highest[k] = l == 0 || x > highest[k] ? x : highest[k];
      }
    }
  });
  for (int64_t k = block.count; k < block.width; ++k) {
    block.highest[k] = 0;
    for (int64_t l = 0; l < shape.classes; ++l) block.x[l * block.width + k] = 0;
  }
}

// ---- Classes side by side: the block is turned so that predictions lie along the lanes.
// A vector's worth of predictions; fewer at the end.
template <typename S>
struct Strip {
  S* first;  // class 0 of the first prediction
  int64_t predictions;
  int64_t classes;
  S* end;  // nothing may be touched from here on

  CAFFECONV_MEMBER bool in_pairs() const { return kLanes > 1 && predictions == kLanes && classes == 2; }

  // Whether it can be moved as squares of whole vectors, some of which reach beyond a prediction's classes.
  CAFFECONV_MEMBER bool in_squares() const {
    return predictions == kLanes && classes >= kLanes / 4 && end - first >= (classes + 1) * kLanes;
  }
};

// Into columns: class l of prediction k goes to to[l·width + k].
template <typename S>
CAFFECONV_HD void take_strip(const Strip<const S>& strip, float* to, int64_t width) {
  const int64_t classes = strip.classes;
  if (strip.in_pairs()) {
    Floats pair[2] = {load<Floats>(strip.first), load<Floats>(strip.first + kLanes)};
    for (int span = 1; span < kLanes; span *= 2) interleave_halves(pair);
    store(to, pair[0]);
    store(to + width, pair[1]);
    return;
  }
  if (!strip.in_squares()) {
    for (int64_t l = 0; l < classes; ++l) {
      for (int64_t k = 0; k < kLanes; ++k) {
        to[l * width + k] = k < strip.predictions ? to_float(strip.first[k * classes + l]) : 0.f;
      }
    }
    return;
  }
  for (int64_t l = 0; l < classes; l += kLanes) {
    Floats square[kLanes];
    for (int k = 0; k < kLanes; ++k) square[k] = load<Floats>(strip.first + k * classes + l);
    transpose(square);
    for (int k = 0; k < kLanes; ++k) {
      if (l + k < classes) store(to + (l + k) * width, square[k]);
    }
  }
}

// And back. What a vector writes too much is the start of a prediction that is written after it.
template <typename S>
CAFFECONV_HD void give_strip(const Strip<S>& strip, const float* from, int64_t width) {
  const int64_t classes = strip.classes;
  if (strip.in_pairs()) {
    Floats pair[2] = {load<Floats>(from), load<Floats>(from + width)};
    interleave_halves(pair);
    store(strip.first, pair[0]);
    store(strip.first + kLanes, pair[1]);
    return;
  }
  if (!strip.in_squares()) {
    for (int64_t k = 0; k < strip.predictions; ++k) {
      for (int64_t l = 0; l < classes; ++l) put(strip.first + k * classes + l, from[l * width + k]);
    }
    return;
  }
  for (int64_t l = (classes - 1) / kLanes * kLanes; l >= 0; l -= kLanes) {
    Floats square[kLanes];
    for (int k = 0; k < kLanes; ++k) square[k] = l + k < classes ? load<Floats>(from + (l + k) * width) : Floats{};
    transpose(square);
    for (int k = 0; k < kLanes; ++k) store(strip.first + k * classes + l, square[k]);
  }
}

template <typename S>
void take_rows(const InfogainJob& job, Block& block) {
  const int64_t classes = job.shape.classes;
  const S* scores = static_cast<const S*>(job.scores);
  for (int64_t lane = 0; lane < block.width; lane += kLanes) {
    const int64_t rest = block.count - lane;
    take_strip<S>({scores + (block.begin + lane) * classes, rest < kLanes ? rest : kLanes, classes,
                   scores + job.shape.outer * classes},
                  block.x + lane, block.width);
    Floats highest = load<Floats>(block.x + lane);
    for (int64_t l = 1; l < classes; ++l) {
      const Floats x = load<Floats>(block.x + l * block.width + lane);
      highest = x > highest ? x : highest;
    }
    store(block.highest + lane, highest);
  }
}

template <typename S>
void give_rows(const InfogainJob& job, int64_t end, const Block& block) {
  const int64_t classes = job.shape.classes;
  S* out = static_cast<S*>(job.out);
  for (int64_t lane = 0; lane < block.count; lane += kLanes) {
    const int64_t rest = block.count - lane;
    give_strip<S>({out + (block.begin + lane) * classes, rest < kLanes ? rest : kLanes, classes, out + end * classes},
                  block.e + lane, block.width);
  }
}

// While a block is worked on, the next one is on its way from memory.
template <typename S>
CAFFECONV_HD void look_ahead(const InfogainJob& job, int64_t end, Block& block) {
  const int64_t inner = job.shape.inner;
  const int64_t i = block.begin + block.count;
  const bool near = i + block.count <= end && i % inner + block.count <= inner;
  block.next = reinterpret_cast<const char*>(static_cast<const S*>(job.scores) + (near ? offset_of(job.shape, i) : 0));
  block.next_class = near ? inner * static_cast<int64_t>(sizeof(S)) : 0;
  block.next_prediction = near ? static_cast<int64_t>(sizeof(S)) : 0;
}

template <typename S>
void give_planes(const InfogainJob& job, const Block& block) {
  const InfogainShape& shape = job.shape;
  S* out = static_cast<S*>(job.out);
  each_run(shape, block, [&](int64_t lane, int64_t n, int64_t offset) {
    for (int64_t l = 0; l < shape.classes; ++l) {
      const float* __restrict from = block.e + l * block.width + lane;
      S* __restrict to = out + offset + l * shape.inner;
      int64_t k = 0;
      for (; k + kLanes <= n; k += kLanes) store(to + k, load<Floats>(from + k));
      for (; k < n; ++k) put(to + k, from[k]);
    }
  });
}

// One vector of predictions: sums over the classes, the losses, and the output in the buffer.
template <typename H, Output Out>
CAFFECONV_HD void softmax_vector(const InfogainJob& job, Block& block, int64_t lane) {
  const int64_t classes = job.shape.classes;
  const int64_t width = block.width;
  const float* x = block.x + lane;
  float* out = block.e + lane;
  const char* next = block.next + lane * block.next_prediction;
  const Floats highest = load<Floats>(block.highest + lane);
  H h;
  h.take(job, block.label + lane);
  SoftmaxSums<Floats> sums = {};
  Floats h_sum = {};
  for (int64_t begin = 0; begin < classes; begin += kRun) {
    const int64_t end = begin + kRun < classes ? begin + kRun : classes;
    SoftmaxSums<Floats> run = {};
    Floats h_run = {};
    for (int64_t l = begin; l < end; ++l) {
      prefetch(next + l * block.next_class);
      const Floats d = load<Floats>(x + l * width) - highest;
      const Floats e = exp_nonpositive(d);
      const Floats h_l = h.at(l);
      add_class(run, d, e, h_l);
      h_run += h_l;
      if constexpr (Out != Output::kNone) store(out + l * width, e);
    }
    add_sums(sums, run);
    h_sum += h_run;
  }
  Ints active;
  memcpy(&active, block.active + lane, sizeof(active));
  if (job.want_loss) {
    const Floats log_z = log_of_z(sums);
    Floats loss = log_z * h_sum - sums.dot;
    if (any_lane(sums.lowest - log_z >= kLogThreshold ? Ints{} : active)) {
      loss = Floats{};
      for (int64_t l = 0; l < classes; ++l) {
        loss -= h.at(l) * log_softmax_clamped(load<Floats>(x + l * width) - highest, log_z);
      }
    }
    store(block.loss + lane, active ? loss : Floats{});
  }
  if constexpr (Out == Output::kProbabilities) {
    const Floats scale = 1.f / z_of(sums);
    for (int64_t l = 0; l < classes; ++l) store(out + l * width, load<Floats>(out + l * width) * scale);
  } else if constexpr (Out == Output::kGradient) {
    const Floats scale = 1.f / z_of(sums) * h_sum * job.gradient_scale;
    for (int64_t l = 0; l < classes; ++l) {
      const Floats value = load<Floats>(out + l * width) * scale - h.at(l) * job.gradient_scale;
      store(out + l * width, active ? value : Floats{});
    }
  }
}

// The form before 2017.
template <typename H, Output Out>
CAFFECONV_HD void probability_vector(const InfogainJob& job, Block& block, int64_t lane) {
  H h;
  h.take(job, block.label + lane);
  Ints active;
  memcpy(&active, block.active + lane, sizeof(active));
  Floats loss = {};
  for (int64_t l = 0; l < job.shape.classes; ++l) {
    const Floats p = load<Floats>(block.x + l * block.width + lane);
    float* out = block.e + l * block.width + lane;
    if (job.want_loss) loss -= h.at(l) * log_clamped(p);
    if constexpr (Out == Output::kGradient) {
      const Floats clamped = p < kThreshold ? broadcast<Floats>(kThreshold) : p;
      store(out, active ? h.at(l) * -job.gradient_scale / clamped : Floats{});
    } else if constexpr (Out == Output::kProbabilities) {
      store(out, p);
    }
  }
  store(block.loss + lane, active ? loss : Floats{});
}

template <typename S, typename H, Output Out>
void run_lanes(const InfogainJob& job, int64_t begin, int64_t end, Block& block, InfogainPart* part) {
  const int64_t widest = block_width(job.shape);
  for (block.begin = begin; block.begin < end; block.begin += block.count) {
    block.count = end - block.begin < widest ? end - block.begin : widest;
    block.width = (block.count + kLanes - 1) / kLanes * kLanes;
    const int64_t legal = take_labels(job, block, part);
    if (legal == 0 && Out == Output::kNone) continue;
    if (job.shape.inner == 1) {
      take_rows<S>(job, block);
    } else {
      take_planes<S>(job, block);
    }
    look_ahead<S>(job, end, block);
    for (int64_t lane = 0; lane < block.width; lane += kLanes) {
      if (job.shape.probabilities) {
        probability_vector<H, Out>(job, block, lane);
      } else {
        softmax_vector<H, Out>(job, block, lane);
      }
    }
    if (job.want_loss) part->loss += sum_of(block.loss, block.count);
    if (Out == Output::kNone) continue;
    if (job.shape.inner == 1) {
      give_rows<S>(job, end, block);
    } else {
      give_planes<S>(job, block);
    }
  }
}

template <typename S, typename H>
void run_lanes(const InfogainJob& job, int64_t begin, int64_t end, Block& block, InfogainPart* part) {
  if (job.output == Output::kNone) return run_lanes<S, H, Output::kNone>(job, begin, end, block, part);
  if (job.output == Output::kGradient) return run_lanes<S, H, Output::kGradient>(job, begin, end, block, part);
  run_lanes<S, H, Output::kProbabilities>(job, begin, end, block, part);
}

// ---- The interface --------------------------------------------------------------------------------------------------
bool use_lanes(const InfogainShape& shape) {
  if (shape.inner == 1) return shape.classes <= kMostTurned;
  return shape.classes * kLanes <= kLargestBlock;
}

int64_t table_width(const InfogainShape& shape) {
#if defined(__AVX512F__)
  const int64_t widths[] = {16, 32, 64, 128};
#elif defined(__AVX2__)
  const int64_t widths[] = {8, 16, 32};
#else
  const int64_t widths[] = {0};
#endif
  if (!use_lanes(shape)) return 0;
  for (const int64_t width : widths) {
    if (shape.classes <= width) return width;
  }
  return 0;
}

template <typename S>
void run_typed(const InfogainJob& job, int64_t begin, int64_t end, InfogainPart* part) {
  const InfogainShape& shape = job.shape;
  void* memory = nullptr;
  const bool two = job.want_loss && job.output != Output::kNone;
  if (use_lanes(shape)) {
    const size_t floats = static_cast<size_t>(shape.classes * block_width(shape));
    memory = malloc(sizeof(Block) + 64 + (two ? 2 : 1) * floats * sizeof(float));
    if (memory != nullptr) {
      Block& block = *static_cast<Block*>(memory);
      const uintptr_t after = reinterpret_cast<uintptr_t>(memory) + sizeof(Block);
      block.x = reinterpret_cast<float*>((after + 63) / 64 * 64);
      block.e = two ? block.x + floats : block.x;
      switch (job.columns_width) {
#if defined(__AVX512F__)
        case 128:
          run_lanes<S, FromTable<128>>(job, begin, end, block, part);
          break;
        case 64:
          run_lanes<S, FromTable<64>>(job, begin, end, block, part);
          break;
#endif
#if defined(__AVX2__)
        case 32:
          run_lanes<S, FromTable<32>>(job, begin, end, block, part);
          break;
        case 16:
          run_lanes<S, FromTable<16>>(job, begin, end, block, part);
          break;
#endif
#if defined(__AVX2__) && !defined(__AVX512F__)
        case 8:
          run_lanes<S, FromTable<8>>(job, begin, end, block, part);
          break;
#endif
        default:
          run_lanes<S, FromRows>(job, begin, end, block, part);
      }
      free(memory);
      return;
    }
  }
  if (shape.inner == 1) {
    run_rows<Floats, S>(job, begin, end, part);
  } else {
    run_rows<float, S>(job, begin, end, part);
  }
}

void run(const InfogainJob& job, int64_t begin, int64_t end, InfogainPart* part) {
  *part = {0, 0, -1};
  if (job.half) {
    run_typed<Half>(job, begin, end, part);
  } else {
    run_typed<float>(job, begin, end, part);
  }
}

void count(const InfogainJob& job, int64_t begin, int64_t end, InfogainPart* part) {
  *part = {0, 0, -1};
  const LabelBits bits(job.shape);
  int64_t legal = 0, illegal = 0;
  for (int64_t i = begin; i < end; ++i) {
    const int32_t label = truncated_label(job.labels[i]);
    const int32_t ignored = bits.ignored(label), inside = bits.inside(label);
    legal -= inside & ~ignored;
    illegal -= ~(inside | ignored);
  }
  part->valid = legal;
  if (illegal == 0) return;
  part->bad_label = begin;
  while (label_kind(truncated_label(job.labels[part->bad_label]), job.shape) != LabelKind::kIllegal) ++part->bad_label;
}

}  // namespace

const InfogainKernels& CAFFECONV_JOIN(infogain_kernels_, CAFFECONV_ISA)() {
  static constexpr InfogainKernels kernels = {CAFFECONV_TEXT(CAFFECONV_ISA), table_width, run, count};
  return kernels;
}

}  // namespace caffeconv
