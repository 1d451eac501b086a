// As much of CUDA as infogain_loss.cu uses, on the CPU: its kernels run, under the sanitizers, where there is no GPU.
//
// Blocks run one after another. A block's threads are coroutines that take turns at every __syncthreads and shuffle, so
// what the kernels exchange is exchanged for real, and a warp whose lanes do not meet is found out. "Device memory" is
// the heap.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)

namespace cuda_on_cpu {

constexpr int kWarp = 32;
constexpr size_t kStack = 64 * 1024;  // AddressSanitizer clears its shadow at every switch

struct Index {
  unsigned x;
};

struct Meeting {
  int arrived = 0;
  int round = 0;
};

// Where a coroutine goes on. swapcontext would cost a system call at every switch, longjmp under AddressSanitizer too.
struct Place {
  void* registers[5];
};

// AddressSanitizer would clear a whole stack's shadow before each call of what does not return.
#define CAFFECONV_SWITCHES __attribute__((noinline, no_sanitize_address))

CAFFECONV_SWITCHES inline void go_on(Place& place) {
  __builtin_longjmp(place.registers, 1);
}

struct Thread {
  ucontext_t context;  // where it begins; from then on `place`
  Place place;
  void* fake_stack = nullptr;
  bool started = false;
  bool finished = false;
};

inline Index block_index, thread_index, grid_size;
inline std::vector<Thread> threads;
inline std::vector<std::unique_ptr<char[]>> stacks;  // a thread's, kept from launch to launch
inline std::vector<Meeting> warps;
inline std::vector<std::vector<uint64_t>> exchanged;
inline Meeting everyone;
inline Place scheduler;
inline void* scheduler_fake_stack = nullptr;
inline const void* scheduler_stack = nullptr;
inline size_t scheduler_stack_size = 0;
inline bool progress = false;
inline std::function<void()> body;

inline void entered([[maybe_unused]] void* fake_stack, [[maybe_unused]] bool remember) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, remember ? &scheduler_stack : nullptr,
                                  remember ? &scheduler_stack_size : nullptr);
#endif
}

inline void leaving([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* stack,
                    [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake_stack, stack, size);
#endif
}

CAFFECONV_SWITCHES inline void yield() {
  Thread& self = threads[thread_index.x];
  leaving(self.finished ? nullptr : &self.fake_stack, scheduler_stack, scheduler_stack_size);
  if (__builtin_setjmp(self.place.registers) == 0) go_on(scheduler);
  entered(self.fake_stack, true);
}

inline void meet(Meeting& meeting, int members) {
  const int round = meeting.round;
  progress = true;
  if (++meeting.arrived == members) {
    meeting.arrived = 0;
    ++meeting.round;
    return;
  }
  while (meeting.round == round) yield();
}

inline void thread_main() {
  entered(nullptr, true);
  body();
  threads[thread_index.x].finished = true;
  progress = true;
  yield();
}

CAFFECONV_SWITCHES inline void resume(unsigned t) {
  thread_index.x = t;
  Thread& thread = threads[t];
  leaving(&scheduler_fake_stack, stacks[t].get(), kStack);
  if (__builtin_setjmp(scheduler.registers) == 0) {
    if (thread.started) go_on(thread.place);
    thread.started = true;
    setcontext(&thread.context);
  }
  entered(scheduler_fake_stack, false);
}

inline void make_ready(unsigned t) {
  threads[t] = {};
  ucontext_t& context = threads[t].context;
  getcontext(&context);
  context.uc_stack.ss_sp = stacks[t].get();
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, thread_main, 0);
}

inline void run(int blocks, int count, std::function<void()> kernel) {
  body = std::move(kernel);
  grid_size.x = static_cast<unsigned>(blocks);
  threads.resize(static_cast<size_t>(count));
  while (stacks.size() < threads.size()) stacks.emplace_back(new char[kStack]);
  for (int b = 0; b < blocks; ++b) {
    block_index.x = static_cast<unsigned>(b);
    everyone = {};
    warps.assign(static_cast<size_t>(count / kWarp), {});
    exchanged.assign(static_cast<size_t>(count / kWarp), std::vector<uint64_t>(kWarp));
    for (unsigned t = 0; t < threads.size(); ++t) make_ready(t);
    for (bool running = true; running;) {
      running = progress = false;
      for (unsigned t = 0; t < threads.size(); ++t) {
        if (threads[t].finished) continue;
        running = true;
        resume(t);
      }
      if (running && !progress) {
        fprintf(stderr, "block %d: its threads wait for one another for ever\n", b);
        abort();
      }
    }
  }
}

template <typename T>
T exchange(T value, unsigned from) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "a register at most");
  const unsigned warp = thread_index.x / kWarp, lane = thread_index.x % kWarp;
  memcpy(&exchanged[warp][lane], &value, sizeof(value));
  meet(warps[warp], kWarp);
  T result = value;
  if (from < kWarp) memcpy(&result, &exchanged[warp][from], sizeof(result));
  meet(warps[warp], kWarp);
  return result;
}

}  // namespace cuda_on_cpu

#define threadIdx cuda_on_cpu::thread_index
#define blockIdx cuda_on_cpu::block_index
#define gridDim cuda_on_cpu::grid_size

inline void __syncthreads() { cuda_on_cpu::meet(cuda_on_cpu::everyone, static_cast<int>(cuda_on_cpu::threads.size())); }

template <typename T>
T __shfl_down_sync(unsigned, T value, int step) {
  return cuda_on_cpu::exchange(value, threadIdx.x % cuda_on_cpu::kWarp + static_cast<unsigned>(step));
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, int step) {
  return cuda_on_cpu::exchange(value, threadIdx.x % cuda_on_cpu::kWarp ^ static_cast<unsigned>(step));
}

template <typename T>
T __ldg(const T* from) {
  return *from;
}

// ---- The host's side
// --------------------------------------------------------------------------------------------------
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorMemoryAllocation };
enum cudaMemcpyKind { cudaMemcpyDeviceToHost };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone };

inline const char* cudaGetErrorString(cudaError_t) { return "out of memory"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus*) { return cudaSuccess; }

inline cudaError_t cudaMallocAsync(void** memory, size_t size, cudaStream_t) {
  *memory = malloc(size);
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

inline cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  free(memory);
  return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t size, cudaStream_t) {
  memset(memory, value, size);
  return cudaSuccess;
}

inline cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) {
  memcpy(to, from, size);
  return cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy(to, from, size, kind);
}
