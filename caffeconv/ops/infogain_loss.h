// The arithmetic of Caffe 1.0's InfogainLoss layer (infogain_loss_layer.cpp), one prediction at a time. It is shared by
// the CPU kernels, where T is a vector of floats (one lane a prediction, or one lane a class), and the CUDA kernels,
// where T is float; it knows nothing of onnxruntime.
//
//   L = −Σ_l H[y,l]·log(max(p_l, 1e-20)),  p = softmax(x)        dL/dx_j = p_j·Σ_l H[y,l] − H[y,j]
//
// With d_l = x_l − max(x) and Z = Σ exp(d_l), log p_l = d_l − log Z, so that where nothing is clamped
//   L = log Z·Σ_l H[y,l] − Σ_l H[y,l]·d_l,
// which needs one sweep over the classes after the maximum. Where any log p_l falls below log(1e-20), a second sweep
// computes L term by term (caffe: kLOG_THRESHOLD in the loss; the gradient is not clamped).
//
// Scores are (outer, classes, inner) in C order; prediction i is (i / inner, :, i % inner), and its label is labels[i].
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define CAFFECONV_HD static __host__ __device__ __forceinline__
#elif defined(__GNUC__)
// Internal linkage, and inlined into callers that are compiled for other instruction sets.
#define CAFFECONV_HD static inline __attribute__((always_inline, unused))
#else
#define CAFFECONV_HD static inline
#endif

namespace caffeconv {

enum class Normalization : int { kFull, kValid, kBatchSize, kNone };

constexpr float kThreshold = 1e-20f;               // caffe: kLOG_THRESHOLD
constexpr float kLogThreshold = -46.05170185988f;  // log(1e-20)

// What a node's attributes and its inputs' shapes say.
struct InfogainShape {
  int64_t outer;
  int64_t classes;
  int64_t inner;
  Normalization normalization;
  bool has_ignore_label;
  int32_t ignore_label;
  bool probabilities;  // the bottom holds probabilities: the layer's form before 2017
};

// One chunk of predictions, summed up. Chunks do not depend on the number of threads, and are added in order.
struct InfogainPart {
  double loss;
  int64_t valid;      // predictions whose label is not ignored
  int64_t bad_label;  // position of the first label outside 0..classes-1, or -1
};

enum class LabelKind { kLegal, kIgnored, kIllegal };

// Caffe: static_cast<int>(label), which truncates towards zero. NaN, infinity and what no int holds become INT32_MIN,
// as they do in Caffe on x86.
CAFFECONV_HD int32_t truncated_label(float label) {
  const bool fits = label >= -2147483648.f && label < 2147483648.f;
  return fits ? static_cast<int32_t>(label) : INT32_MIN;
}

CAFFECONV_HD LabelKind label_kind(int32_t label, const InfogainShape& shape) {
  if (shape.has_ignore_label && label == shape.ignore_label) return LabelKind::kIgnored;
  return label >= 0 && label < shape.classes ? LabelKind::kLegal : LabelKind::kIllegal;
}

// Caffe: LossLayer's get_normalizer, never below 1.
CAFFECONV_HD double normalizer(const InfogainShape& shape, int64_t valid) {
  double n = 1;
  if (shape.normalization == Normalization::kFull) n = static_cast<double>(shape.outer * shape.inner);
  if (shape.normalization == Normalization::kValid) n = static_cast<double>(valid);
  if (shape.normalization == Normalization::kBatchSize) n = static_cast<double>(shape.outer);
  return n < 1 ? 1 : n;
}

// ---- float and vectors of float alike -------------------------------------------------------------------------------
template <typename T>
struct Integers {
  using type = int32_t;
  using unsigned_type = uint32_t;
};

template <typename To, typename From>
CAFFECONV_HD To bits_of(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "bits_of keeps the size");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

// exp(d) for d ≤ 0, to about 1 ulp; 0 below the smallest normal float; NaN stays NaN.
template <typename T>
CAFFECONV_HD T exp_nonpositive(T d) {
#if defined(__CUDA_ARCH__)
  return expf(d);
#else
  using U = typename Integers<T>::unsigned_type;
  const T lowest = T{} - 87.33654f;
  const T x = d < lowest ? lowest : d;
  // Adding 1.5·2^23 rounds to the nearest integer n and leaves n in the low bits: exp(x) = 2^n·exp(r), |r| ≤ ln2/2.
  const T shifted = x * 1.44269504f + 12582912.f;
  const T n = shifted - 12582912.f;
  const T r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  T q = T{} + 1.9875691500e-4f;  // minimax, as in Cephes' expf
  q = q * r + 1.3981999507e-3f;
  q = q * r + 8.3334519073e-3f;
  q = q * r + 4.1665795894e-2f;
  q = q * r + 1.6666665459e-1f;
  q = q * r + 5.0000001201e-1f;
  q = q * (r * r) + r + 1.f;
  // The exponent of 12582912 vanishes in the shift; what is left adds n to q's own.
  const T e = bits_of<T>(bits_of<U>(q) + (bits_of<U>(shifted) << 23));
  return d < lowest ? T{} : e;
#endif
}

// log(u) for normal u > 0, to about 1 ulp. u = NaN or infinity give garbage: the callers see to them.
template <typename T>
CAFFECONV_HD T log_normal(T u) {
  using I = typename Integers<T>::type;
  const I offset = bits_of<I>(u) - 0x3f3504f3;  // sqrt(1/2): mantissa in [sqrt(1/2), sqrt(2))
  const T m = bits_of<T>((offset & 0x007fffff) + 0x3f3504f3);
  const I exponent = offset >> 23;
#if defined(__CUDA_ARCH__) || !defined(__GNUC__)
  const T e = static_cast<T>(exponent);
#else
  // int → float without a conversion, which vector types lack: 1.5·2^23 + e, less 1.5·2^23.
  const T e = bits_of<T>(exponent + 0x4b400000) - 12582912.f;
#endif
  const T f = m - 1.f;
  const T s = f / (f + 2.f);
  const T z = s * s;
  const T w = z * z;
  const T r =
      z * (w * 0.28498786688f + 0.66666662693f) + w * (w * 0.24279078841f + 0.40000972152f);  // as FreeBSD's logf
  const T half = f * f * 0.5f;
  return s * (half + r) + e * 9.0580006145e-6f - half + f + e * 6.9313812256e-1f;
}

// log(1 + z) for z ≥ 0, exact also where 1 + z rounds to 1; NaN stays NaN.
template <typename T>
CAFFECONV_HD T log1p_nonnegative(T z) {
  const T u = z + 1.f;
  return log_normal(u) + (z - (u - 1.f)) / u;
}

// log(max(p, 1e-20)); NaN stays NaN (caffe: std::max(prob, kLOG_THRESHOLD) does so).
template <typename T>
CAFFECONV_HD T log_clamped(T p) {
  const T clamped = p < kThreshold ? T{} + kThreshold : p;
  return clamped <= 3.4028234e38f ? log_normal(clamped) : clamped;
}

// log(max(p_l, 1e-20)) of a softmax, from d_l = x_l − max(x) and log Z.
template <typename T>
CAFFECONV_HD T log_softmax_clamped(T d, T log_z) {
  const T log_p = d - log_z;
  return log_p < kLogThreshold ? T{} + kLogThreshold : log_p;
}

// The running sums over a prediction's classes. Z is kept as (number of exact ones) + (sum of the rest): a confident
// prediction's loss is log(1 + tiny), and 1 + tiny would round the tiny part away.
template <typename T>
struct SoftmaxSums {
  T ones;
  T rest;
  T dot;     // Σ H[y,l]·d_l
  T lowest;  // min d_l: says whether anything is clamped
};

template <typename T>
CAFFECONV_HD void add_class(SoftmaxSums<T>& sums, T d, T e, T h) {
  const T one = T{} + 1.f;
  sums.ones += d == 0.f ? one : T{};
  sums.rest += d == 0.f ? T{} : e;
  sums.dot += h * d;
  sums.lowest = d < sums.lowest ? d : sums.lowest;
}

template <typename T>
CAFFECONV_HD void add_sums(SoftmaxSums<T>& sums, const SoftmaxSums<T>& more) {
  sums.ones += more.ones;
  sums.rest += more.rest;
  sums.dot += more.dot;
  sums.lowest = more.lowest < sums.lowest ? more.lowest : sums.lowest;
}

template <typename T>
CAFFECONV_HD T z_of(const SoftmaxSums<T>& sums) {
  return sums.ones + sums.rest;
}

template <typename T>
CAFFECONV_HD T log_of_z(const SoftmaxSums<T>& sums) {
  return log1p_nonnegative((sums.ones - 1.f) + sums.rest);
}

// ---- One sweep without the maximum ----------------------------------------------------------------------------------
// The GPU kernels see each score once: the sums refer to the highest score so far, and move when a higher one comes.
struct RunningSums {
  float highest;
  float lowest;
  float ones;
  float rest;
  float dot;  // Σ H[y,l]·(x_l − highest)
  float h;    // Σ H[y,l]
};

constexpr float kLargestFloat = 3.402823466e38f;

// No score yet. Not −infinity: −infinity less itself is no number.
CAFFECONV_HD RunningSums no_sums() { return {-kLargestFloat, kLargestFloat, 0, 0, 0, 0}; }

CAFFECONV_HD void rebase(RunningSums& sums, float highest) {
  const float change = sums.highest - highest;
  sums.rest = (sums.rest + sums.ones) * exp_nonpositive(change);
  sums.ones = 0;
  sums.dot += sums.h * (change < -kLargestFloat ? -kLargestFloat : change);
  sums.highest = highest;
}

// NaN counts for nothing, as in `b > a ? b : a`.
CAFFECONV_HD float higher_of(float a, float b) {
#if defined(__CUDA_ARCH__)
  return fmaxf(a, b);
#else
  return b > a ? b : a;
#endif
}

CAFFECONV_HD float lower_of(float a, float b) {
#if defined(__CUDA_ARCH__)
  return fminf(a, b);
#else
  return b < a ? b : a;
#endif
}

// Scores x[0..count-1] and their elements of H's row; x may live in registers, so every index is known at compile time.
// At least `Sure` of them are there, which costs no comparison.
template <int Size, int Sure>
CAFFECONV_HD void add_scores(RunningSums& sums, const float (&x)[Size], const float (&h)[Size], int count) {
  float highest = sums.highest;
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
  for (int k = 0; k < Size; ++k) {
    if (k < Sure || k < count) highest = higher_of(highest, x[k]);
  }
  if (highest > sums.highest) rebase(sums, highest);
  // Summed up before they join the totals: rounding grows with the terms added.
  float ones = 0, rest = 0, dot = 0, h_sum = 0;
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
  for (int k = 0; k < Size; ++k) {
    if (k < Sure || k < count) {
      const float d = x[k] - highest;
      const float one = d == 0.f ? 1.f : 0.f;
      ones += one;
      rest += exp_nonpositive(d) - one;
      dot += h[k] * d;
      h_sum += h[k];
      sums.lowest = lower_of(sums.lowest, x[k]);
    }
  }
  sums.ones += ones;
  sums.rest += rest;
  sums.dot += dot;
  sums.h += h_sum;
}

// The sums of two sets of classes of one prediction.
CAFFECONV_HD RunningSums merged(RunningSums a, RunningSums b) {
  const float highest = b.highest > a.highest ? b.highest : a.highest;
  if (highest > a.highest) rebase(a, highest);
  if (highest > b.highest) rebase(b, highest);
  return {highest,  b.lowest < a.lowest ? b.lowest : a.lowest, a.ones + b.ones, a.rest + b.rest, a.dot + b.dot,
          a.h + b.h};
}

CAFFECONV_HD float z_of(const RunningSums& sums) { return sums.ones + sums.rest; }

CAFFECONV_HD float log_of_z(const RunningSums& sums) { return log1p_nonnegative((sums.ones - 1.f) + sums.rest); }

// Whether the loss has to be taken term by term.
CAFFECONV_HD bool is_clamped(const RunningSums& sums, float log_z) {
  return !(sums.lowest - sums.highest - log_z >= kLogThreshold);
}

}  // namespace caffeconv
