// The CUDA kernels of InfogainLoss: their loss and gradient against float64, and their time as a share of the GPU's
// memory bandwidth. Needs a GPU and its toolkit, and nothing else:
//
//   nvcc -O3 -std=c++17 -arch=native -Icaffeconv/ops benchmarks/infogain_cuda.cu caffeconv/ops/infogain_loss.cu
//   ./a.out
//
// "kernels" are replays of a CUDA graph, "call" is the whole function as onnxruntime calls it, which waits for the GPU
// to say whether a label is out of range. Bytes: the scores and labels read once, the gradient written once. Bandwidth:
// what a copy on the device reads and writes. Medians of 50 after a warm-up; the scores of the largest shape do not fit
// into any cache.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "infogain_loss_cuda.h"

using namespace caffeconv;

namespace {

constexpr int kRounds = 50;
constexpr int kChecked = 20000;  // predictions whose gradient is held against float64

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
  exit(1);
}

void check(const CudaResult& result) {
  if (result.error == nullptr && result.bad_label < 0) return;
  fprintf(stderr, "the kernels refuse: %s, label %lld\n", result.error == nullptr ? "" : result.error,
          static_cast<long long>(result.bad_label));
  exit(1);
}

template <typename T>
class OnDevice {
 public:
  explicit OnDevice(size_t count) : count_(count) { check(cudaMalloc(&data_, count * sizeof(T)), "cudaMalloc"); }
  explicit OnDevice(const std::vector<T>& values) : OnDevice(values.size()) {
    check(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "copying to the GPU");
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  T* data() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> result(count_);
    check(cudaMemcpy(result.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "copying from the GPU");
    return result;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

// Uniform, in 0..1, and cheap: a hash of the index (as in SplitMix64).
double uniform(uint64_t index) {
  uint64_t z = (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

// Milliseconds of `f` on the stream, the median of many.
template <typename F>
double median_ms(cudaStream_t stream, F f) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<double> times;
  for (int round = 0; round < kRounds + 5; ++round) {
    check(cudaEventRecord(begin, stream), "cudaEventRecord");
    f();
    check(cudaEventRecord(end, stream), "cudaEventRecord");
    check(cudaEventSynchronize(end), "cudaEventSynchronize");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (round >= 5) times.push_back(static_cast<double>(ms));
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
  return times[kRounds / 2];
}

template <typename F>
double replayed_ms(cudaStream_t stream, F f) {
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  f();
  check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  check(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
  const double ms = median_ms(stream, [&] { check(cudaGraphLaunch(replay, stream), "cudaGraphLaunch"); });
  check(cudaGraphExecDestroy(replay), "cudaGraphExecDestroy");
  check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  return ms;
}

// Bytes per second that a copy on the device reads and writes.
double bandwidth(cudaStream_t stream) {
  const size_t bytes = size_t{1} << 30;
  const OnDevice<char> from(bytes), to(bytes);
  check(cudaMemset(from.data(), 1, bytes), "cudaMemset");
  const double ms = median_ms(stream, [&] {
    check(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, stream), "cudaMemcpyAsync");
  });
  return 2.0 * static_cast<double>(bytes) / (ms * 1e-3);
}

float from_score(float x) { return x; }
float from_score(__half x) { return __half2float(x); }
void to_score(float* to, double value) { *to = static_cast<float>(value); }
void to_score(__half* to, double value) { *to = __float2half(static_cast<float>(value)); }

struct Errors {
  double loss;      // relative
  double gradient;  // of the largest element
};

template <typename S>
struct Problem {
  InfogainShape shape;
  std::vector<S> scores;
  std::vector<float> labels, h;

  explicit Problem(const InfogainShape& its_shape) : shape(its_shape) {
    const size_t predictions = static_cast<size_t>(shape.outer * shape.inner);
    const size_t classes = static_cast<size_t>(shape.classes);
    scores.resize(predictions * classes);
    labels.resize(predictions);
    h.resize(classes * classes);
    for (size_t i = 0; i < scores.size(); ++i) to_score(&scores[i], 6 * uniform(i) - 3);
    for (size_t i = 0; i < predictions; ++i) {
      labels[i] = std::min(std::floor(static_cast<float>(uniform(~i) * classes)), static_cast<float>(classes - 1));
    }
    for (size_t i = 0; i < h.size(); ++i) h[i] = static_cast<float>(uniform(i ^ 0x5555));
  }

  size_t at(size_t i, size_t l) const {
    const size_t inner = static_cast<size_t>(shape.inner), classes = static_cast<size_t>(shape.classes);
    return (i / inner * classes + l) * inner + i % inner;
  }

  Errors errors(float loss, const std::vector<S>& diff) const {
    const size_t classes = static_cast<size_t>(shape.classes), predictions = labels.size();
    const double n = normalizer(shape, static_cast<int64_t>(predictions));
    const size_t stride = std::max<size_t>(1, predictions / kChecked);
    double total = 0, worst = 0, largest = 0;
    std::vector<double> e(classes);
    for (size_t i = 0; i < predictions; ++i) {
      const float* row = &h[static_cast<size_t>(labels[i]) * classes];
      double highest = -INFINITY, z = 0, h_sum = 0;
      for (size_t l = 0; l < classes; ++l) highest = std::max<double>(highest, from_score(scores[at(i, l)]));
      for (size_t l = 0; l < classes; ++l) z += e[l] = std::exp(from_score(scores[at(i, l)]) - highest);
      for (size_t l = 0; l < classes; ++l) {
        total -= row[l] * (from_score(scores[at(i, l)]) - highest - std::log(z));
        h_sum += row[l];
      }
      if (i % stride != 0) continue;
      for (size_t l = 0; l < classes; ++l) {
        const double truth = (e[l] / z * h_sum - row[l]) / n;
        worst = std::max(worst, std::fabs(from_score(diff[at(i, l)]) - truth));
        largest = std::max(largest, std::fabs(truth));
      }
    }
    return {std::fabs(loss / (total / n) - 1), worst / largest};
  }
};

template <typename S>
void measure(int64_t outer, int64_t classes, int64_t inner, cudaStream_t stream, double peak) {
  // half precision holds no gradient that is divided by millions of predictions
  const Normalization normalization = sizeof(S) == 2 ? Normalization::kNone : Normalization::kFull;
  const Problem<S> problem({outer, classes, inner, normalization, false, 0, false});
  const OnDevice<S> scores(problem.scores), diff(problem.scores.size());
  const OnDevice<float> labels(problem.labels), h(problem.h), loss(size_t{1}), one(std::vector<float>{1.f});
  CudaJob job = {};
  job.shape = problem.shape;
  job.stream = stream;
  job.scores = scores.data();
  job.half = sizeof(S) == 2;
  job.labels = labels.data();
  job.h = h.data();
  job.loss = loss.data();
  CudaJob gradient = job;
  gradient.loss_diff = one.data();
  gradient.scores_diff = diff.data();

  const double bytes = static_cast<double>(problem.scores.size() * sizeof(S) + problem.labels.size() * sizeof(float));
  const double written = static_cast<double>(problem.scores.size() * sizeof(S));
  const auto forward = [&] { check(infogain_loss_cuda(job)); };
  const auto both = [&] { check(infogain_loss_grad_cuda(gradient)); };
  const double ms[] = {replayed_ms(stream, forward), median_ms(stream, forward), replayed_ms(stream, both),
                       median_ms(stream, both)};
  check(cudaMemset(loss.data(), 0xff, sizeof(float)), "cudaMemset");
  both();
  const float with_gradient = loss.values()[0];
  const Errors errors = problem.errors(with_gradient, diff.values());
  forward();
  if (loss.values()[0] != with_gradient) printf("forward and forward + backward give other losses\n");
  const auto share = [&](double of, double time) { return 100 * of / (time * 1e-3) / peak; };
  printf("%6lld x %4lld x %6lld %s | %8.4f %5.1f%% | %7.4f %5.1f%% | %8.4f %5.1f%% | %7.4f %5.1f%% | %.1e  %.1e\n",
         static_cast<long long>(outer), static_cast<long long>(classes), static_cast<long long>(inner),
         sizeof(S) == 2 ? "half " : "float", ms[0], share(bytes, ms[0]), ms[1], share(bytes, ms[1]), ms[2],
         share(bytes + written, ms[2]), ms[3], share(bytes + written, ms[3]), errors.loss, errors.gradient);
}

}  // namespace

int main() {
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "no GPU");
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  const double peak = bandwidth(stream);
  printf("%s, %d multiprocessors, a copy on it moves %.0f GB/s\n", device.name, device.multiProcessorCount, peak / 1e9);
  printf("%28s | %-32s | %-32s | relative errors\n", "", "forward: kernels, call", "forward + backward: kernels, call");
  printf("%28s | %15s | %14s | %15s | %14s | %7s  %7s\n", "outer x classes x inner", "ms  share", "ms  share",
         "ms  share", "ms  share", "loss", "diff");
  measure<float>(256, 1000, 1, stream, peak);
  measure<float>(1, 21, 512 * 512, stream, peak);
  measure<float>(8, 19, 256 * 512, stream, peak);
  measure<float>(8, 19, 512 * 1024, stream, peak);
  measure<__half>(8, 19, 512 * 1024, stream, peak);
  measure<float>(200000, 21, 1, stream, peak);
  return 0;
}
