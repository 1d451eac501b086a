// See cuda_runtime.h beside this file.
#pragma once

#include <cmath>
#include <cstdint>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half value) {
  const int exponent = (value.bits >> 10) & 31;
  const float mantissa = static_cast<float>(value.bits & 1023);
  float magnitude = std::ldexp(exponent == 0 ? mantissa : mantissa + 1024.f, (exponent == 0 ? 1 : exponent) - 25);
  if (exponent == 31) magnitude = mantissa == 0 ? INFINITY : NAN;
  return (value.bits & 0x8000) != 0 ? -magnitude : magnitude;
}

// To nearest, ties to even.
inline __half __float2half_rn(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (magnitude >= 65520.f) return {static_cast<uint16_t>(sign | 0x7c00)};
  int exponent = magnitude < 6.103515625e-5f ? -14 : std::ilogb(magnitude);
  int mantissa = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  if (magnitude < 6.103515625e-5f) return {static_cast<uint16_t>(sign | mantissa)};
  return {static_cast<uint16_t>(sign | (((exponent + 15) << 10) + (mantissa - 1024)))};
}
