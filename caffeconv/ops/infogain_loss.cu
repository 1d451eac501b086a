// InfogainLoss on the GPU. Spatial scores: one thread a prediction, so that neighbouring threads read neighbouring
// scores. Classes side by side: one warp a prediction. Either way every score is read from memory once, and kept in
// registers for the gradient where the classes are few enough. Sums are taken in a fixed order, without atomics: the
// same input gives the same bits.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

#include "infogain_loss_cuda.h"

namespace caffeconv {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kMaxBlocks = 4096;    // a constant, not what the device likes: the order of summation depends on it
constexpr int kChunk = 8;           // scores in flight where they are not kept
constexpr int kSharedClasses = 64;  // H lies in shared memory up to here
constexpr unsigned kAllLanes = 0xffffffffu;

enum class Mode { kLoss, kGradient };

struct Arguments {
  InfogainShape shape;
  const float* labels;
  const float* h;
  const float* loss_diff;
  const InfogainPart* total;  // of the labels, for the gradient's normalizer
  InfogainPart* parts;        // one a block
  bool share_h;
  bool want_loss;
};

__device__ __forceinline__ float value_of(const float* from) { return __ldg(from); }
__device__ __forceinline__ float value_of(const __half* from) { return __half2float(__ldg(from)); }
__device__ __forceinline__ void put(float* to, float value) { *to = value; }
__device__ __forceinline__ void put(__half* to, float value) { *to = __float2half_rn(value); }

__device__ __forceinline__ InfogainPart merged(const InfogainPart& a, const InfogainPart& b) {
  const bool first = b.bad_label < 0 || (a.bad_label >= 0 && a.bad_label < b.bad_label);
  return {a.loss + b.loss, a.valid + b.valid, first ? a.bad_label : b.bad_label};
}

// Of all threads of the block; the result is thread 0's.
__device__ InfogainPart sum_of_block(InfogainPart part) {
  __shared__ InfogainPart warps[kThreads / kWarp];
  for (int step = kWarp / 2; step > 0; step /= 2) {
    InfogainPart other;
    other.loss = __shfl_down_sync(kAllLanes, part.loss, step);
    other.valid = __shfl_down_sync(kAllLanes, static_cast<long long>(part.valid), step);
    other.bad_label = __shfl_down_sync(kAllLanes, static_cast<long long>(part.bad_label), step);
    part = merged(part, other);
  }
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = part;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kThreads / kWarp; ++w) part = merged(part, warps[w]);
  }
  return part;
}

__global__ void __launch_bounds__(kThreads)
    sum_parts(const InfogainPart* parts, int count, InfogainShape shape, InfogainPart* total, float* loss) {
  InfogainPart part = {0, 0, -1};
#pragma unroll 8
  for (int i = threadIdx.x; i < count; i += kThreads) part = merged(part, parts[i]);
  part = sum_of_block(part);
  if (threadIdx.x != 0) return;
  *total = part;
  if (loss == nullptr) return;
  // NaN for whoever cannot be told of an illegal label, as while a CUDA graph is captured.
  *loss =
      part.bad_label >= 0 ? bits_of<float>(0x7fc00000) : static_cast<float>(part.loss / normalizer(shape, part.valid));
}

__global__ void __launch_bounds__(kThreads) count_labels(Arguments arguments, int64_t predictions) {
  InfogainPart part = {0, 0, -1};
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < predictions; i += gridDim.x * int64_t{kThreads}) {
    const LabelKind kind = label_kind(truncated_label(arguments.labels[i]), arguments.shape);
    part.valid += kind == LabelKind::kLegal;
    if (kind == LabelKind::kIllegal && part.bad_label < 0) part.bad_label = i;
  }
  part = sum_of_block(part);
  if (threadIdx.x == 0) arguments.parts[blockIdx.x] = part;
}

// What a prediction's classes are to one of the `Lanes` threads that share it: first, first + Lanes, ...
template <typename S, int Lanes>
struct Classes {
  const S* x;      // of the first
  const float* h;  // of the first
  int64_t step;    // from a score to the next
  int count;

  __device__ __forceinline__ float score(int k) const { return value_of(x + k * step); }
  __device__ __forceinline__ float weight(int k) const { return h[k * Lanes]; }
};

template <int Lanes>
__device__ __forceinline__ float sum_of_lanes(float value) {
  for (int step = Lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

template <int Lanes>
__device__ __forceinline__ RunningSums sum_of_lanes(RunningSums sums) {
  for (int step = Lanes / 2; step > 0; step /= 2) {
    RunningSums other;
    other.highest = __shfl_xor_sync(kAllLanes, sums.highest, step);
    other.lowest = __shfl_xor_sync(kAllLanes, sums.lowest, step);
    other.ones = __shfl_xor_sync(kAllLanes, sums.ones, step);
    other.rest = __shfl_xor_sync(kAllLanes, sums.rest, step);
    other.dot = __shfl_xor_sync(kAllLanes, sums.dot, step);
    other.h = __shfl_xor_sync(kAllLanes, sums.h, step);
    // The same order on both sides of the exchange, so that all lanes end with the same bits.
    sums = (threadIdx.x & step) == 0 ? merged(sums, other) : merged(other, sums);
  }
  return sums;
}

// One prediction; returns its loss. Kept: scores a thread keeps, 0 where it reads them again for the output; of these,
// at least `Sure` are there. out: of the first class, null where only the loss is wanted.
template <typename S, Mode M, int Lanes, int Kept, int Sure>
__device__ __forceinline__ float softmax_prediction(const Classes<S, Lanes>& classes, bool want_loss, float scale,
                                                    S* out) {
  constexpr int size = Kept > 0 ? Kept : kChunk;
  float x[size];
  float h[size];
  RunningSums sums = no_sums();
  for (int begin = 0; begin < classes.count; begin += size) {
    const int count = classes.count - begin;
    const S* from = classes.x + begin * classes.step;
#pragma unroll
    for (int k = 0; k < size; ++k, from += classes.step) {
      x[k] = k < Sure || k < count ? value_of(from) : 0.f;
    }
#pragma unroll
    for (int k = 0; k < size; ++k) h[k] = k < Sure || k < count ? classes.weight(begin + k) : 0.f;
    add_scores<size, Sure>(sums, x, h, count);
    if (Kept > 0) break;
  }
  sums = sum_of_lanes<Lanes>(sums);
  const float log_z = log_of_z(sums);
  float loss = 0;
  if (want_loss) {
    loss = log_z * sums.h - sums.dot;
    if (is_clamped(sums, log_z)) {
      loss = 0;
#pragma unroll 1
      for (int k = 0; k < classes.count; ++k) {
        loss -= classes.weight(k) * log_softmax_clamped(classes.score(k) - sums.highest, log_z);
      }
      loss = sum_of_lanes<Lanes>(loss);
    }
  }
  if (out == nullptr) return loss;

  const float p_scale = M == Mode::kGradient ? 1.f / z_of(sums) * sums.h * scale : 1.f / z_of(sums);
  for (int begin = 0; begin < classes.count; begin += size) {
    const int count = classes.count - begin;
    S* to = out + begin * classes.step;
#pragma unroll
    for (int k = 0; k < size; ++k, to += classes.step) {
      if (k < Sure || k < count) {
        const float score = Kept > 0 ? x[k] : classes.score(begin + k);
        float value = exp_nonpositive(score - sums.highest) * p_scale;
        if (M == Mode::kGradient) value -= classes.weight(begin + k) * scale;
        put(to, value);
      }
    }
    if (Kept > 0) break;
  }
  return loss;
}

// The form before 2017: the bottom holds probabilities.
template <typename S, Mode M, int Lanes>
__device__ __forceinline__ float probability_prediction(const Classes<S, Lanes>& classes, bool want_loss, float scale,
                                                        S* out) {
  float loss = 0;
  for (int k = 0; k < classes.count; ++k) {
    const float p = classes.score(k);
    const float h = classes.weight(k);
    if (want_loss) loss -= h * log_clamped(p);
    if (out != nullptr) {
      const float clamped = p < kThreshold ? kThreshold : p;
      put(out + k * classes.step, M == Mode::kGradient ? h * -scale / clamped : p);
    }
  }
  return sum_of_lanes<Lanes>(loss);
}

// Where prediction i's first score is.
__device__ __forceinline__ int64_t offset_of(int64_t i, const InfogainShape& shape, bool fits_32_bits) {
  if (fits_32_bits) {  // a division of 64 bits takes as long as several classes do
    const uint32_t inner = static_cast<uint32_t>(shape.inner);
    const uint32_t outer = static_cast<uint32_t>(i) / inner;
    return static_cast<int64_t>(outer) * shape.classes * shape.inner + (static_cast<uint32_t>(i) - outer * inner);
  }
  return i / shape.inner * shape.classes * shape.inner + i % shape.inner;
}

// Lanes is 1 (a thread a prediction) or kWarp.
template <typename S, Mode M, int Lanes, int Kept, int Sure>
__global__ void __launch_bounds__(kThreads) run_predictions(Arguments arguments, const S* scores, S* out) {
  __shared__ float shared_h[kSharedClasses * kSharedClasses];
  const InfogainShape& shape = arguments.shape;
  const float* h = arguments.h;
  if (arguments.share_h) {
    for (int64_t k = threadIdx.x; k < shape.classes * shape.classes; k += kThreads) shared_h[k] = h[k];
    __syncthreads();
    h = shared_h;
  }
  float scale = 0;
  if (M == Mode::kGradient) {
    scale = static_cast<float>(*arguments.loss_diff / normalizer(shape, arguments.total->valid));
  }
  constexpr int64_t at_once = kThreads / Lanes;
  const int lane = static_cast<int>(threadIdx.x % Lanes);
  const int64_t predictions = shape.outer * shape.inner;
  const bool fits_32_bits = predictions <= UINT32_MAX;
  const int mine = static_cast<int>((shape.classes - lane + Lanes - 1) / Lanes);
  InfogainPart part = {0, 0, -1};
  for (int64_t i = blockIdx.x * at_once + threadIdx.x / Lanes; i < predictions; i += gridDim.x * at_once) {
    const int32_t label = truncated_label(arguments.labels[i]);
    const LabelKind kind = label_kind(label, shape);
    const bool active = kind == LabelKind::kLegal;
    if (lane == 0) {
      part.valid += active;
      if (kind == LabelKind::kIllegal && part.bad_label < 0) part.bad_label = i;
    }
    const int64_t offset = offset_of(i, shape, fits_32_bits) + lane * shape.inner;
    S* const to = out == nullptr ? nullptr : out + offset;
    const Classes<S, Lanes> classes = {scores + offset, h + (active ? label : 0) * shape.classes + lane,
                                       Lanes * shape.inner, mine};
    if (!active && (M == Mode::kGradient || to == nullptr)) {
      if (to == nullptr) continue;
      for (int k = 0; k < mine; ++k) put(to + k * classes.step, 0.f);
      continue;
    }
    const bool want_loss = arguments.want_loss && active;
    const float loss = shape.probabilities ? probability_prediction<S, M, Lanes>(classes, want_loss, scale, to)
                                           : softmax_prediction<S, M, Lanes, Kept, Sure>(classes, want_loss, scale, to);
    if (lane == 0) part.loss += loss;
  }
  part = sum_of_block(part);
  if (threadIdx.x == 0) arguments.parts[blockIdx.x] = part;
}

#if defined(__CUDACC__)
template <typename... Parameters>
void start(void (*kernel)(Parameters...), int blocks, void* stream, std::common_type_t<Parameters>... arguments) {
  kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(arguments...);
}
#else
// Any C++ compiler: tests/ops/cuda_on_cpu runs the kernels without a GPU.
template <typename... Parameters>
void start(void (*kernel)(Parameters...), int blocks, void*, std::common_type_t<Parameters>... arguments) {
  cuda_on_cpu::run(blocks, kThreads, [=] { kernel(arguments...); });
}
#endif

int blocks_for(int64_t predictions, int64_t at_once) {
  const int64_t blocks = (predictions + at_once - 1) / at_once;
  return static_cast<int>(blocks < 1 ? 1 : blocks > kMaxBlocks ? kMaxBlocks : blocks);
}

// Returns the number of blocks, each of which leaves one part.
template <typename S, Mode M, int Lanes, int Kept, int Sure>
int launch_kept(const CudaJob& job, const Arguments& arguments, void* out) {
  const int blocks = blocks_for(job.shape.outer * job.shape.inner, kThreads / Lanes);
  start(run_predictions<S, M, Lanes, Kept, Sure>, blocks, job.stream, arguments, static_cast<const S*>(job.scores),
        static_cast<S*>(out));
  return blocks;
}

// The least of Kept, More... that holds the classes of a thread; it has more of them than the one before.
template <typename S, Mode M, int Lanes, int Sure>
int launch_lanes(const CudaJob& job, const Arguments& arguments, void* out) {
  return launch_kept<S, M, Lanes, 0, 0>(job, arguments, out);
}

template <typename S, Mode M, int Lanes, int Sure, int Kept, int... More>
int launch_lanes(const CudaJob& job, const Arguments& arguments, void* out) {
  if ((job.shape.classes + Lanes - 1) / Lanes <= Kept) return launch_kept<S, M, Lanes, Kept, Sure>(job, arguments, out);
  return launch_lanes<S, M, Lanes, Kept, More...>(job, arguments, out);
}

template <typename S, Mode M>
int launch_scores(const CudaJob& job, const Arguments& arguments, void* out) {
  const bool by_thread = job.shape.inner >= kWarp;
  return by_thread ? launch_lanes<S, M, 1, 0, 4, 8, 12, 16, 20, 24, 32, 40>(job, arguments, out)
                   : launch_lanes<S, M, kWarp, 0, 8, 24, 40>(job, arguments, out);
}

template <Mode M>
int launch(const CudaJob& job, const Arguments& arguments, void* out) {
  return job.half ? launch_scores<__half, M>(job, arguments, out) : launch_scores<float, M>(job, arguments, out);
}

// What a call needs on the device beside its inputs and outputs; given back on the same stream.
class Workspace {
 public:
  explicit Workspace(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {
    status_ = cudaMallocAsync(reinterpret_cast<void**>(&parts_), sizeof(InfogainPart) * (kMaxBlocks + 1), stream_);
  }
  ~Workspace() {
    if (parts_ != nullptr) cudaFreeAsync(parts_, stream_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  cudaError_t status() const { return status_; }
  InfogainPart* parts() const { return parts_; }
  InfogainPart* total() const { return parts_ + kMaxBlocks; }

 private:
  cudaStream_t stream_;
  cudaError_t status_ = cudaSuccess;
  InfogainPart* parts_ = nullptr;
};

CudaResult failed(cudaError_t status) { return {cudaGetErrorString(status), -1, 0}; }

// No prediction: the loss is 0.
CudaResult empty(const CudaJob& job) {
  if (job.loss == nullptr) return {nullptr, -1, 0};
  const cudaError_t status = cudaMemsetAsync(job.loss, 0, sizeof(float), static_cast<cudaStream_t>(job.stream));
  return status == cudaSuccess ? CudaResult{nullptr, -1, 0} : failed(status);
}

// Waits for the stream, to say which label is illegal. A graph being captured cannot be waited for: its loss is NaN
// then.
CudaResult finish(const CudaJob& job, const Workspace& workspace) {
  cudaStream_t stream = static_cast<cudaStream_t>(job.stream);
  cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) return failed(status);
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  status = cudaStreamIsCapturing(stream, &capture);
  if (status != cudaSuccess) return failed(status);
  if (capture != cudaStreamCaptureStatusNone) return {nullptr, -1, 0};
  InfogainPart total = {0, 0, -1};
  status = cudaMemcpyAsync(&total, workspace.total(), sizeof(total), cudaMemcpyDeviceToHost, stream);
  if (status == cudaSuccess) status = cudaStreamSynchronize(stream);
  if (status != cudaSuccess) return failed(status);
  if (total.bad_label < 0) return {nullptr, -1, 0};
  float value = 0;
  status = cudaMemcpy(&value, job.labels + total.bad_label, sizeof(value), cudaMemcpyDeviceToHost);
  if (status != cudaSuccess) return failed(status);
  return {nullptr, total.bad_label, value};
}

Arguments arguments_of(const CudaJob& job, const Workspace& workspace) {
  Arguments arguments = {};
  arguments.shape = job.shape;
  arguments.labels = job.labels;
  arguments.h = job.h;
  arguments.loss_diff = job.loss_diff;
  arguments.total = workspace.total();
  arguments.parts = workspace.parts();
  arguments.want_loss = job.loss != nullptr;
  arguments.share_h = job.shape.classes <= kSharedClasses;
  return arguments;
}

}  // namespace

CudaResult infogain_loss_cuda(const CudaJob& job) {
  if (job.shape.outer * job.shape.inner == 0) return empty(job);
  const Workspace workspace(job.stream);
  if (workspace.status() != cudaSuccess) return failed(workspace.status());
  const int parts = launch<Mode::kLoss>(job, arguments_of(job, workspace), job.prob);
  start(sum_parts, 1, job.stream, workspace.parts(), parts, job.shape, workspace.total(), job.loss);
  return finish(job, workspace);
}

CudaResult infogain_loss_grad_cuda(const CudaJob& job) {
  const int64_t predictions = job.shape.outer * job.shape.inner;
  if (predictions == 0) return empty(job);
  const Workspace workspace(job.stream);
  if (workspace.status() != cudaSuccess) return failed(workspace.status());
  const Arguments arguments = arguments_of(job, workspace);
  // The labels first: the normalizer may depend on them, and the scores' kernel divides by it.
  const int parts = blocks_for(predictions, kThreads);
  start(count_labels, parts, job.stream, arguments, predictions);
  start(sum_parts, 1, job.stream, workspace.parts(), parts, job.shape, workspace.total(), nullptr);
  const int gradients = launch<Mode::kGradient>(job, arguments, job.scores_diff);
  if (job.loss != nullptr) {
    start(sum_parts, 1, job.stream, workspace.parts(), gradients, job.shape, workspace.total(), job.loss);
  }
  return finish(job, workspace);
}

}  // namespace caffeconv
