// InfogainLoss on the CPU: what infogain_loss_cpu.cc offers once per instruction set, and who picks among them. Plain
// structs and function pointers only, because both sides are compiled for different processors.
#pragma once

#include "infogain_loss.h"
#include "isa.h"

namespace caffeconv {

enum class Output { kNone, kProbabilities, kGradient };

// One call of the operator. Buffers hold what InfogainShape says: scores and out outer·classes·inner elements (float,
// or IEEE half where `half`), labels outer·inner, h classes·classes.
struct InfogainJob {
  InfogainShape shape;
  const void* scores;
  bool half;
  const float* labels;
  const float* h;
  const float* columns;  // H transposed, see fill_columns; null where `table_width` says 0
  int64_t columns_width;
  bool want_loss;
  Output output;
  void* out;
  float gradient_scale;  // top gradient ÷ normalizer
};

struct InfogainKernels {
  const char* name;
  // Width of a row of `columns`, or 0 where this build reads H itself.
  int64_t (*table_width)(const InfogainShape& shape);
  // Predictions begin..end-1. Labels outside 0..classes-1 are reported, not followed.
  void (*run)(const InfogainJob& job, int64_t begin, int64_t end, InfogainPart* part);
  // Their labels alone.
  void (*count)(const InfogainJob& job, int64_t begin, int64_t end, InfogainPart* part);
};

const InfogainKernels& infogain_kernels_portable();
const InfogainKernels& infogain_kernels_avx2();
const InfogainKernels& infogain_kernels_avx512();

inline const InfogainKernels& infogain_kernels(Isa build) {
#if defined(CAFFECONV_WITH_AVX512)
  if (build == Isa::kAvx512) return infogain_kernels_avx512();
#endif
#if defined(CAFFECONV_WITH_AVX2)
  if (build == Isa::kAvx2) return infogain_kernels_avx2();
#endif
  (void)build;
  return infogain_kernels_portable();
}

// columns[l·width + y] = H[y,l], 0 for y ≥ classes.
inline void fill_columns(const InfogainShape& shape, const float* h, int64_t width, float* columns) {
  const int64_t classes = shape.classes;
  for (int64_t l = 0; l < classes; ++l) {
    for (int64_t y = 0; y < width; ++y) columns[l * width + y] = y < classes ? h[y * classes + l] : 0.f;
  }
}

// Predictions in one chunk of work: enough to pay for handing it out, few enough to keep every thread busy.
inline int64_t chunk_predictions(const InfogainShape& shape) {
  const int64_t elements = 1 << 16;
  const int64_t classes = shape.classes < 1 ? 1 : shape.classes;
  const int64_t chunk = elements / classes;
  return chunk < 8 ? 8 : chunk;
}

}  // namespace caffeconv
