// Vectors of floats, as wide as the instruction set that a file is compiled for, and a square of them turned. Everything in
// it has internal linkage: each build of the kernels has its own.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

namespace caffeconv {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#elif defined(__GNUC__)
constexpr int kLanes = 4;
#else
constexpr int kLanes = 1;
#endif

#if defined(__GNUC__)
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t UnsignedInts __attribute__((vector_size(4 * kLanes)));
#else
using Floats = float;
using Ints = int32_t;
using UnsignedInts = uint32_t;
#endif

template <typename V>
inline V load(const float* from) {
  V value;
  memcpy(&value, from, sizeof(V));
  return value;
}

template <typename V>
inline void store(float* to, V value) {
  memcpy(to, &value, sizeof(V));
}

#if defined(__GNUC__)
// Lanes of a and b in turn, of their lower halves or their upper ones.
template <bool Upper, int... K>
inline Floats interleaved(Floats a, Floats b, std::integer_sequence<int, K...>) {
  constexpr int first = Upper ? kLanes / 2 : 0;
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (first + K / 2 + K % 2 * kLanes)...);
#else
  return __builtin_shuffle(a, b, Ints{(first + K / 2 + K % 2 * kLanes)...});
#endif
}
#endif

// Rows × kLanes elements, one after another: the second half is laid between the first. It moves the highest bit of an
// element's place to the lowest.
template <int Rows>
inline void interleave_halves(Floats (&rows)[Rows]) {
#if defined(__GNUC__)
  constexpr auto lanes = std::make_integer_sequence<int, kLanes>();
  Floats next[Rows];
  for (int i = 0; i < Rows / 2; ++i) {
    next[2 * i] = interleaved<false>(rows[i], rows[i + Rows / 2], lanes);
    next[2 * i + 1] = interleaved<true>(rows[i], rows[i + Rows / 2], lanes);
  }
  for (int i = 0; i < Rows; ++i) rows[i] = next[i];
#else
  static_assert(kLanes == 1, "no vectors, nothing to turn");
#endif
}

// rows[i][k] ↔ rows[k][i]: once for each bit of a lane's number, and row and lane have changed roles.
inline void transpose(Floats (&rows)[kLanes]) {
  for (int span = 1; span < kLanes; span *= 2) interleave_halves(rows);
}

}  // namespace
}  // namespace caffeconv
