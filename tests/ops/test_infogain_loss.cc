// The kernels against a plain float64 reading of Caffe's infogain_loss_layer.cpp: every build that this processor can
// run, and the CUDA kernels by way of cuda_on_cpu. Every buffer has exactly the size it must have, so that
// AddressSanitizer and valgrind see the first byte beyond it. Prints what it ran; exit status 1 at the first failure.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "infogain_loss_cpu.h"
#include "infogain_loss_cuda.h"

using namespace caffeconv;

namespace {

#define EXPECT(condition, ...)                                              \
  do {                                                                      \
    if (!(condition)) {                                                     \
      fprintf(stderr, "%s:%d: %s fails: ", __FILE__, __LINE__, #condition); \
      fprintf(stderr, __VA_ARGS__);                                         \
      fprintf(stderr, "\n");                                                \
      exit(1);                                                              \
    }                                                                       \
  } while (0)

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// Plain memory of exactly n elements, unlike a vector's.
template <typename T>
struct Buffer {
  explicit Buffer(size_t n, T value = {}) : size(n), data(new T[n]) { std::fill(data.get(), data.get() + n, value); }
  T& operator[](size_t i) { return data[i]; }
  const T& operator[](size_t i) const { return data[i]; }
  size_t size;
  std::unique_ptr<T[]> data;
};

// ---- IEEE half, the slow and plain way
// --------------------------------------------------------------------------------
float float_of_half(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const float mantissa = static_cast<float>(bits & 1023);
  float magnitude = std::ldexp(exponent == 0 ? mantissa : mantissa + 1024, (exponent == 0 ? 1 : exponent) - 25);
  if (exponent == 31) magnitude = mantissa == 0 ? kInf : kNan;
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

uint16_t half_of_float(float value) {
  if (std::isnan(value)) return 0x7e00;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  uint16_t low = 0, high = 0x7c00;  // positive halves are ordered like their bits
  while (high - low > 1) {
    const uint16_t middle = static_cast<uint16_t>((low + high) / 2);
    (float_of_half(middle) <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - static_cast<double>(float_of_half(low));
  const double above = (high == 0x7c00 ? 65536.0 : float_of_half(high)) - static_cast<double>(magnitude);
  const bool up = above < below || (above == below && (high & 1) == 0);
  return static_cast<uint16_t>(sign | (up ? high : low));
}

// ---- Problems
// ---------------------------------------------------------------------------------------------------------
struct Problem {
  InfogainShape shape;
  bool half;
  Buffer<float> scores, labels, h;  // scores as floats, also where the kernels get them as halves
  float loss_diff = 1.25f;

  size_t predictions() const { return static_cast<size_t>(shape.outer * shape.inner); }
  size_t at(size_t i, size_t l) const {
    const size_t inner = static_cast<size_t>(shape.inner), classes = static_cast<size_t>(shape.classes);
    return (i / inner * classes + l) * inner + i % inner;
  }
};

struct Answer {
  double loss = 0;
  double loss_size = 0;  // Σ|terms|/normalizer: what rounding is measured by
  std::vector<double> prob, diff, diff_size;
};

Problem random_problem(std::mt19937& random, InfogainShape shape, bool half, float spread) {
  const size_t predictions = static_cast<size_t>(shape.outer * shape.inner),
               classes = static_cast<size_t>(shape.classes);
  const size_t labels = classes > 5000 ? 2 : classes;  // rows of H that no label asks for need not be there
  Problem problem = {shape, half, Buffer<float>(predictions * classes), Buffer<float>(predictions),
                     Buffer<float>(labels * classes)};
  std::normal_distribution<float> normal(0, spread);
  for (size_t i = 0; i < problem.scores.size; ++i) {
    float score = shape.probabilities ? std::exp(-std::fabs(normal(random))) : normal(random);
    if (random() % 16 == 0) score = shape.probabilities ? 0.f : std::round(score);  // zeros; ties
    problem.scores[i] = half ? float_of_half(half_of_float(score)) : score;
  }
  for (size_t i = 0; i < predictions; ++i) {
    problem.labels[i] = static_cast<float>(random() % labels) + (random() % 4 == 0 ? 0.75f : 0.f);
    if (shape.has_ignore_label && random() % 3 == 0) problem.labels[i] = static_cast<float>(shape.ignore_label);
  }
  for (size_t i = 0; i < problem.h.size; ++i) problem.h[i] = normal(random) / spread;
  for (size_t l = 0; l < classes; ++l) problem.h[random() % labels * classes + l] = 0;
  return problem;
}

// caffe: InfogainLossLayer::Forward_cpu and Backward_cpu, in double.
Answer answer_of(const Problem& problem) {
  const InfogainShape& shape = problem.shape;
  const size_t classes = static_cast<size_t>(shape.classes), predictions = problem.predictions();
  Answer answer;
  answer.prob.resize(problem.scores.size);
  answer.diff.resize(problem.scores.size);
  answer.diff_size.resize(problem.scores.size);
  int64_t valid = 0;
  for (size_t i = 0; i < predictions; ++i) {
    double highest = problem.scores[problem.at(i, 0)], z = 0;
    for (size_t l = 0; l < classes; ++l)
      highest = std::max(highest, static_cast<double>(problem.scores[problem.at(i, l)]));
    for (size_t l = 0; l < classes; ++l) z += std::exp(problem.scores[problem.at(i, l)] - highest);
    for (size_t l = 0; l < classes; ++l) {
      const float score = problem.scores[problem.at(i, l)];
      answer.prob[problem.at(i, l)] = shape.probabilities ? score : std::exp(score - highest) / z;
    }
    const int label = static_cast<int>(problem.labels[i]);
    if (shape.has_ignore_label && label == shape.ignore_label) continue;
    ++valid;
    const float* h = &problem.h[static_cast<size_t>(label) * classes];
    double h_sum = 0, h_size = 0;
    for (size_t l = 0; l < classes; ++l) h_sum += h[l], h_size += std::fabs(h[l]);
    for (size_t l = 0; l < classes; ++l) {
      const double p = answer.prob[problem.at(i, l)], clamped = std::max(p, 1e-20);
      answer.loss -= h[l] * std::log(clamped);
      answer.loss_size += std::fabs(h[l] * std::log(clamped));
      answer.diff[problem.at(i, l)] = shape.probabilities ? -h[l] / clamped : p * h_sum - h[l];
      answer.diff_size[problem.at(i, l)] =
          shape.probabilities ? std::fabs(h[l] / clamped) : p * h_size + std::fabs(h[l]);
    }
  }
  const double n = normalizer(shape, valid);
  answer.loss /= n;
  answer.loss_size /= n;
  for (size_t k = 0; k < problem.scores.size; ++k) {
    answer.diff[k] *= problem.loss_diff / n;
    answer.diff_size[k] *= problem.loss_diff / n;
  }
  return answer;
}

struct Result {
  float loss = kNan;
  float loss_of_gradient = kNan;
  int64_t bad_label = -1;
  std::vector<float> prob, diff;
};

// A buffer of the scores' type and count, filled with NaN.
struct Output_ {
  Output_(const Problem& problem)
      : half(problem.half),
        floats(half ? 0 : problem.scores.size, kNan),
        halves(half ? problem.scores.size : 0, 0x7e01) {}
  void* data() { return half ? static_cast<void*>(halves.data.get()) : floats.data.get(); }
  std::vector<float> values() const {
    std::vector<float> result(half ? halves.size : floats.size);
    for (size_t k = 0; k < result.size(); ++k) result[k] = half ? float_of_half(halves[k]) : floats[k];
    return result;
  }
  bool half;
  Buffer<float> floats;
  Buffer<uint16_t> halves;
};

Buffer<uint16_t> halves_of(const Problem& problem) {
  Buffer<uint16_t> halves(problem.half ? problem.scores.size : 0);
  for (size_t k = 0; k < halves.size; ++k) halves[k] = half_of_float(problem.scores[k]);
  return halves;
}

Result run_cpu(const Problem& problem, const InfogainKernels& kernels, bool with_prob, int64_t chunk) {
  const int64_t predictions = static_cast<int64_t>(problem.predictions());
  const Buffer<uint16_t> halves = halves_of(problem);
  InfogainJob job = {};
  job.shape = problem.shape;
  job.half = problem.half;
  job.scores = problem.half ? static_cast<const void*>(halves.data.get()) : problem.scores.data.get();
  job.labels = problem.labels.data.get();
  job.h = problem.h.data.get();
  job.columns_width = kernels.table_width(problem.shape);
  Buffer<float> columns(static_cast<size_t>(job.columns_width * problem.shape.classes));
  fill_columns(problem.shape, job.h, job.columns_width, columns.data.get());
  job.columns = columns.data.get();

  // The last chunk first: one that writes into the next, which another thread may have done, is found out.
  const auto all = [&](auto step) {
    InfogainPart total = {0, 0, -1};
    for (int64_t begin = (predictions - 1) / chunk * chunk; begin >= 0; begin -= chunk) {
      InfogainPart part;
      step(job, begin, std::min(begin + chunk, predictions), &part);
      total.loss += part.loss;
      total.valid += part.valid;
      if (part.bad_label >= 0) total.bad_label = part.bad_label;
    }
    return total;
  };
  Result result;
  Output_ prob(problem), diff(problem);
  job.want_loss = true;
  job.output = with_prob ? Output::kProbabilities : Output::kNone;
  job.out = with_prob ? prob.data() : nullptr;
  const InfogainPart total = all(kernels.run);
  result.loss = static_cast<float>(total.loss / normalizer(problem.shape, total.valid));
  result.bad_label = total.bad_label;
  const InfogainPart count = all(kernels.count);
  EXPECT(count.valid == total.valid && count.bad_label == total.bad_label, "count and run disagree on the labels");
  job.want_loss = with_prob;  // the gradient with the loss, or alone
  job.output = Output::kGradient;
  job.out = diff.data();
  job.gradient_scale = static_cast<float>(problem.loss_diff / normalizer(problem.shape, total.valid));
  const double loss = all(kernels.run).loss;
  if (with_prob) result.loss_of_gradient = static_cast<float>(loss / normalizer(problem.shape, total.valid));
  if (with_prob) result.prob = prob.values();
  result.diff = diff.values();
  return result;
}

Result run_cuda(const Problem& problem, bool with_prob) {
  const Buffer<uint16_t> halves = halves_of(problem);
  Result result;
  Output_ prob(problem), diff(problem);
  const auto loss = std::make_unique<float>(kNan);
  const auto loss_diff = std::make_unique<float>(problem.loss_diff);
  CudaJob job = {};
  job.shape = problem.shape;
  job.half = problem.half;
  job.scores = problem.half ? static_cast<const void*>(halves.data.get()) : problem.scores.data.get();
  job.labels = problem.labels.data.get();
  job.h = problem.h.data.get();
  job.loss = loss.get();
  job.prob = with_prob ? prob.data() : nullptr;
  const CudaResult forward = infogain_loss_cuda(job);
  const auto loss_of_gradient = std::make_unique<float>(kNan);
  job.loss = with_prob ? loss_of_gradient.get() : nullptr;
  job.loss_diff = loss_diff.get();
  job.scores_diff = diff.data();
  const CudaResult backward = infogain_loss_grad_cuda(job);
  EXPECT(forward.error == nullptr && backward.error == nullptr, "CUDA error");
  EXPECT(forward.bad_label == backward.bad_label, "loss and gradient disagree on the labels");
  result.loss = *loss;
  result.bad_label = forward.bad_label;
  if (with_prob) result.prob = prob.values();
  if (with_prob) result.loss_of_gradient = *loss_of_gradient;
  result.diff = diff.values();
  return result;
}

// A score less the highest score is rounded once, and exp makes a relative error of that absolute one.
double slack(double p) { return p > 0 ? -6e-8 * std::log(p) : 0; }

void expect_close(const Problem& problem, const Result& result, const std::string& what) {
  const Answer answer = answer_of(problem);
  // Halves keep 11 bits; the smallest normal half is 6e-5, and below it they keep absolute distances.
  const double relative = problem.half ? 1e-3 : 2e-6, absolute = problem.half ? 6e-8 : 1e-35;
  EXPECT(result.bad_label == -1, "%s: label %lld refused", what.c_str(), static_cast<long long>(result.bad_label));
  const double loss_error = std::fabs(result.loss - answer.loss);
  EXPECT(loss_error <= 1e-6 * answer.loss_size + 1e-12, "%s: loss %.9g, should be %.9g", what.c_str(),
         static_cast<double>(result.loss), answer.loss);
  EXPECT(result.prob.empty() || std::fabs(result.loss_of_gradient - answer.loss) <= 1e-6 * answer.loss_size + 1e-12,
         "%s: the gradient's loss %.9g, should be %.9g", what.c_str(), static_cast<double>(result.loss_of_gradient),
         answer.loss);
  for (size_t k = 0; k < result.prob.size(); ++k) {
    const double error = std::fabs(result.prob[k] - answer.prob[k]);
    EXPECT(error <= (relative + slack(answer.prob[k])) * answer.prob[k] + absolute,
           "%s: prob[%zu] %.9g, should be %.9g", what.c_str(), k, static_cast<double>(result.prob[k]), answer.prob[k]);
  }
  for (size_t k = 0; k < result.diff.size(); ++k) {
    const double size = problem.half ? std::fabs(answer.diff[k]) : 0;
    if (problem.half && std::fabs(answer.diff[k]) > 65000) continue;  // no half holds it
    const double error = std::fabs(result.diff[k] - answer.diff[k]);
    const double rounding = 2e-6 + (problem.shape.probabilities ? 0 : slack(answer.prob[k]));
    EXPECT(error <= rounding * answer.diff_size[k] + relative * size + absolute, "%s: diff[%zu] %.9g, should be %.9g",
           what.c_str(), k, static_cast<double>(result.diff[k]), answer.diff[k]);
  }
}

std::string name_of(const Problem& problem) {
  const InfogainShape& shape = problem.shape;
  return std::to_string(shape.outer) + "x" + std::to_string(shape.classes) + "x" + std::to_string(shape.inner) +
         (problem.half ? " half" : "") + (shape.probabilities ? " probabilities" : "") +
         (shape.has_ignore_label ? " ignore" : "") + " normalization " +
         std::to_string(static_cast<int>(shape.normalization));
}

// f(result, name of the kernels)
template <typename F>
void with_all_kernels(const Problem& problem, bool with_prob, F f) {
  Isa builds[3];
  const int count = runnable_builds(builds);
  for (int b = 0; b < count; ++b) {
    f(run_cpu(problem, infogain_kernels(builds[b]), with_prob, chunk_predictions(problem.shape)), std::string(infogain_kernels(builds[b]).name));
    const int64_t small = problem.predictions() > 20 ? 20 : 5;
    f(run_cpu(problem, infogain_kernels(builds[b]), with_prob, small), std::string(infogain_kernels(builds[b]).name) + " small chunks");
  }
  f(run_cuda(problem, with_prob), std::string("cuda"));
}

// ---- Tests
// ------------------------------------------------------------------------------------------------------------
void test_functions(bool quick) {
  double worst_exp = 0, worst_log = 0, worst_log1p = 0;
  for (double d = 0; d > -87.3; d -= quick ? 0.0137 : 1.37e-4) {
    const float x = static_cast<float>(d);
    worst_exp = std::max(worst_exp, std::fabs(exp_nonpositive(x) / std::exp(static_cast<double>(x)) - 1));
  }
  for (float u = 1e-20f; u < 3e38f; u *= quick ? 1.03f : 1.0003f) {
    const double exact = std::log(static_cast<double>(u));
    worst_log = std::max(worst_log, std::fabs(log_normal(u) - exact) / std::max(std::fabs(exact), 1e-30));
    if (u < 1e9f)
      worst_log1p = std::max(worst_log1p, std::fabs(log1p_nonnegative(u) / std::log1p(static_cast<double>(u)) - 1));
  }
  EXPECT(worst_exp < 1.5e-7 && worst_log < 1.5e-7 && worst_log1p < 2e-7, "errors %g %g %g", worst_exp, worst_log,
         worst_log1p);
  EXPECT(exp_nonpositive(0.f) == 1 && exp_nonpositive(-1e30f) == 0 && exp_nonpositive(-kInf) == 0, "exp at the ends");
  EXPECT(std::isnan(exp_nonpositive(kNan)) && std::isnan(log1p_nonnegative(kNan)) && std::isnan(log_clamped(kNan)),
         "NaN");
  EXPECT(log_clamped(kInf) == kInf && log_clamped(0.f) == log_clamped(1e-20f) && log_normal(1.f) == 0,
         "log at the ends");
  EXPECT(truncated_label(2.99f) == 2 && truncated_label(-0.99f) == 0 && truncated_label(-1.f) == -1, "truncation");
  for (const float label : {kNan, kInf, -kInf, 3e9f, -3e9f}) EXPECT(truncated_label(label) == INT32_MIN, "%g", label);
  printf("exp, log, log1p: relative errors %.2g, %.2g, %.2g\n", worst_exp, worst_log, worst_log1p);
}

void test_random(bool quick) {
  std::mt19937 random(20170817);
  const std::vector<std::vector<int64_t>> shapes = {
      {1, 1, 1},    {5, 2, 1},    {33, 10, 1},  {7, 31, 1},    {6, 32, 1},    {9, 100, 1}, {3, 1000, 1}, {2, 1300, 1},
      {1, 21, 7},   {2, 3, 40},   {3, 19, 130}, {4, 5, 3},     {1, 16, 1100}, {2, 33, 35}, {1, 64, 50},  {1, 65, 33},
      {1, 128, 17}, {1, 129, 40}, {2, 7, 16},   {1, 70000, 2}, {2, 300, 32},  {1, 8, 90},  {1, 41, 60},  {1, 25, 70},
      {70, 2, 1},   {37, 3, 1},   {50, 4, 1},   {45, 8, 1},    {40, 16, 1},   {70, 21, 1}, {35, 40, 1},  {40, 64, 1},
      {20, 65, 1},  {70, 1, 1},
      // where the CUDA kernels go on to keep more scores
      {1, 4, 33},   {1, 12, 33},  {1, 13, 33},  {1, 20, 33},   {1, 24, 33},   {1, 32, 33}, {1, 40, 33},  {2, 256, 1},
      {2, 257, 1},  {2, 768, 1},  {2, 769, 1},  {2, 1280, 1},  {2, 1281, 1}};
  int count = 0;
  for (const std::vector<int64_t>& dims : shapes) {
    const bool large = dims[0] * dims[1] * dims[2] > 20000;
    if (quick && dims[0] * dims[1] * dims[2] > 1500) continue;
    for (int variant = 0; variant < (quick || large ? 4 : 8); ++variant) {
      InfogainShape shape = {dims[0],           dims[1],
                             dims[2],           static_cast<Normalization>(random() % 4),
                             random() % 2 == 0, static_cast<int32_t>(random() % 4) - 1,
                             variant % 4 == 3};
      const float spread = variant % 4 == 2 ? 40.f : 3.f;  // 40: many probabilities below 1e-20
      const Problem problem = random_problem(random, shape, variant >= (quick || large ? 2 : 4), spread);
      with_all_kernels(problem, variant % 2 == 0, [&](const Result& result, const std::string& kernels) {
        expect_close(problem, result, kernels + " " + name_of(problem));
        ++count;
      });
    }
  }
  printf("random problems: %d runs\n", count);
}

void test_labels(bool quick) {
  std::mt19937 random(1);
  for (const std::vector<int64_t>& dims :
       std::vector<std::vector<int64_t>>{{40, 5, 1}, {40, 50, 1}, {2, 6, 50}, {2, 200, 40}}) {
    for (const bool ignore : {false, true}) {
      for (const float label :
           {static_cast<float>(dims[1]), -1.f, -7.f, 1e30f, -1e30f, kNan, kInf, -kInf, 2147483648.f}) {
        if (quick && label > 0) continue;
        const InfogainShape shape = {dims[0], dims[1], dims[2], Normalization::kValid, ignore, -1, false};
        Problem problem = random_problem(random, shape, false, 3);
        problem.labels[37] = label;
        problem.labels[39] = label;
        const int64_t bad = ignore && label == -1.f ? -1 : 37;
        with_all_kernels(problem, true, [&](const Result& result, const std::string& kernels) {
          EXPECT(result.bad_label == bad, "%s: label %g: position %lld", kernels.c_str(), static_cast<double>(label),
                 static_cast<long long>(result.bad_label));
        });
      }
    }
  }
  printf("illegal labels: found\n");
}

// NaN and infinity go where IEEE and Caffe send them, and no further than their own prediction.
void test_nonfinite(bool quick) {
  std::mt19937 random(2);
  for (const std::vector<int64_t>& dims :
       std::vector<std::vector<int64_t>>{{3, 5, 1}, {3, 100, 1}, {1, 21, 40}, {1, 200, 40}}) {
    for (const float value : {kNan, kInf, -kInf}) {
      for (const size_t l : {size_t{0}, static_cast<size_t>(dims[1]) / 2, static_cast<size_t>(dims[1]) - 1}) {
        if (quick && l == 0) continue;
        const InfogainShape shape = {dims[0], dims[1], dims[2], Normalization::kFull, true, -1, false};
        Problem problem = random_problem(random, shape, false, 3);
        std::fill(problem.h.data.get(), problem.h.data.get() + problem.h.size, 1.f);
        problem.scores[problem.at(1, l)] = value;
        problem.labels[1] = 0;
        with_all_kernels(problem, true, [&](const Result& result, const std::string& kernels) {
          const bool nan = value != -kInf;  // −∞: probability 0, loss clamped
          const std::string what = kernels + " " + name_of(problem) + " class " + std::to_string(l);
          EXPECT(std::isnan(result.loss) == nan, "%s: loss %g of a score %g", what.c_str(), result.loss, value);
          for (size_t i = 0; i < problem.predictions(); ++i) {
            for (size_t k = 0; k < static_cast<size_t>(dims[1]); ++k) {
              const bool here = nan && i == 1;
              EXPECT(std::isnan(result.prob[problem.at(i, k)]) == here, "%s: prob of prediction %zu", what.c_str(), i);
              EXPECT(std::isnan(result.diff[problem.at(i, k)]) == here, "%s: diff of prediction %zu", what.c_str(), i);
            }
          }
          if (!nan) expect_close(problem, result, what);
        });
        problem.labels[1] = -1;  // an ignored prediction's NaN reaches neither loss nor gradient
        with_all_kernels(problem, false, [&](const Result& result, const std::string& kernels) {
          EXPECT(!std::isnan(result.loss), "%s: loss with an ignored NaN", kernels.c_str());
          for (size_t k = 0; k < problem.scores.size; ++k)
            EXPECT(!std::isnan(result.diff[k]), "%s: diff", kernels.c_str());
        });
      }
    }
  }
  printf("NaN and infinity: where they belong\n");
}

void test_extremes() {
  for (const int64_t inner : {int64_t{1}, int64_t{40}}) {
    const InfogainShape shape = {2, 3, inner, Normalization::kFull, false, 0, false};
    Problem problem = {shape, false, Buffer<float>(static_cast<size_t>(6 * inner)),
                       Buffer<float>(static_cast<size_t>(2 * inner)), Buffer<float>(9)};
    const float rows[3] = {1e4f, -1e4f, 9.9999e3f};
    for (size_t i = 0; i < problem.predictions(); ++i) {
      for (size_t l = 0; l < 3; ++l) problem.scores[problem.at(i, l)] = rows[(l + i) % 3];
      problem.labels[i] = static_cast<float>(i % 3);
    }
    for (size_t l = 0; l < 3; ++l) problem.h[4 * l] = 1;
    with_all_kernels(problem, true, [&](const Result& result, const std::string& kernels) {
      expect_close(problem, result, kernels + " scores of ±1e4");
    });
    // A confident prediction's small loss keeps its digits: log(1 + 2e-9).
    for (size_t i = 0; i < problem.predictions(); ++i) {
      for (size_t l = 0; l < 3; ++l) problem.scores[problem.at(i, l)] = l == i % 3 ? 20.f : 0.f;
    }
    with_all_kernels(problem, true, [&](const Result& result, const std::string& kernels) {
      const double exact = std::log1p(2 * std::exp(-20.));
      EXPECT(std::fabs(result.loss / exact - 1) < 1e-6, "%s: %g", kernels.c_str(), result.loss);
    });
    for (size_t i = 0; i < problem.predictions(); ++i) problem.labels[i] = -1;
    problem.shape.has_ignore_label = true;
    problem.shape.ignore_label = -1;
    problem.shape.normalization = Normalization::kValid;
    with_all_kernels(problem, true, [&](const Result& result, const std::string& kernels) {
      EXPECT(result.loss == 0, "%s: everything ignored", kernels.c_str());
      for (const float value : result.diff) EXPECT(value == 0, "%s: everything ignored", kernels.c_str());
    });
  }
  printf("extreme scores, confident predictions, everything ignored: right\n");
}

// Every half there is, as the score of class 1 against 0: prob comes out as a half again.
void test_halves() {
  const InfogainShape shape = {1, 2, 63488, Normalization::kNone, false, 0, false};
  Problem problem = {shape, true, Buffer<float>(2 * 63488), Buffer<float>(63488), Buffer<float>(4, 1.f)};
  size_t n = 0;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    if ((bits & 0x7c00) == 0x7c00) continue;  // NaN and infinity: test_nonfinite
    EXPECT(half_of_float(float_of_half(static_cast<uint16_t>(bits))) == bits, "half %x", bits);
    problem.scores[63488 + n++] = float_of_half(static_cast<uint16_t>(bits));
  }
  Isa builds[3];
  const int count = runnable_builds(builds);
  for (int b = 0; b < count; ++b) {
    Problem copied = {shape, true, Buffer<float>(problem.scores.size), Buffer<float>(63488), Buffer<float>(4)};
    copied.shape.probabilities = true;  // the form whose prob is the scores themselves
    std::copy(problem.scores.data.get(), problem.scores.data.get() + problem.scores.size, copied.scores.data.get());
    const Result result = run_cpu(copied, infogain_kernels(builds[b]), true, 1 << 16);
    for (size_t k = 0; k < copied.scores.size; ++k) {
      EXPECT(half_of_float(result.prob[k]) == half_of_float(copied.scores[k]), "%s: half %g", infogain_kernels(builds[b]).name,
             copied.scores[k]);
    }
    // Rounding on the way out, against the plain way; a kernel's float may lie one rounding away from double's.
    const Result softmax = run_cpu(problem, infogain_kernels(builds[b]), true, 1 << 16);
    for (size_t i = 0; i < 63488; ++i) {
      const double p = 1 / (1 + std::exp(-static_cast<double>(problem.scores[63488 + i])));
      const int wrong = half_of_float(softmax.prob[63488 + i]) - half_of_float(static_cast<float>(p));
      EXPECT(std::abs(wrong) <= 1, "%s: prob of %g", infogain_kernels(builds[b]).name, problem.scores[63488 + i]);
    }
  }
  printf("halves: all of them\n");
}

// The sums do not depend on how the chunks are spread over threads, nor on anything else but the input.
void test_repeats() {
  std::mt19937 random(3);
  const Problem problem = random_problem(random, {2, 19, 700, Normalization::kValid, true, 1, false}, false, 3);
  std::vector<float> losses;
  for (int n = 0; n < 2; ++n) {
    size_t k = 0;
    with_all_kernels(problem, false, [&](const Result& result, const std::string& kernels) {
      if (n == 0) losses.push_back(result.loss);
      EXPECT(losses[k++] == result.loss, "%s: another loss the second time", kernels.c_str());
    });
  }
  printf("repeated runs: the same bits\n");
}

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::string(argv[1]) == "--quick";  // for valgrind
  Isa builds[3];
  const int count = runnable_builds(builds);
  for (int b = 0; b < count; ++b) printf("%s, ", infogain_kernels(builds[b]).name);
  printf("cuda on the CPU\n");
  test_functions(quick);
  test_random(quick);
  test_labels(quick);
  test_nonfinite(quick);
  test_extremes();
  if (!quick) test_halves();
  test_repeats();
  printf("all passed\n");
  return 0;
}
