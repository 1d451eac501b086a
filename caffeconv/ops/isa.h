// The instruction sets that CMake compiles the CPU kernels for, a build each (CAFFECONV_ISA names it); the processor says at
// run time which of them it can run.
#pragma once

#define CAFFECONV_JOIN_(a, b) a##b
#define CAFFECONV_JOIN(a, b) CAFFECONV_JOIN_(a, b)
#define CAFFECONV_TEXT_(a) #a
#define CAFFECONV_TEXT(a) CAFFECONV_TEXT_(a)

namespace caffeconv {

enum class Isa { kPortable, kAvx2, kAvx512 };

// The builds that this processor can run, best first; returns how many.
inline int runnable_builds(Isa (&builds)[3]) {
  int count = 0;
#if defined(CAFFECONV_WITH_AVX512)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    builds[count++] = Isa::kAvx512;
  }
#endif
#if defined(CAFFECONV_WITH_AVX2)
  // Every processor with AVX2 has F16C.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) builds[count++] = Isa::kAvx2;
#endif
  builds[count++] = Isa::kPortable;
  return count;
}

inline Isa best_build() {
  Isa builds[3];
  runnable_builds(builds);
  return builds[0];
}

}  // namespace caffeconv
