// The onnxruntime side of caffeconv.InfogainLoss and caffeconv.InfogainLossGrad: attributes, shapes, checks, threads.
// The arithmetic is in infogain_loss.h, the loops in infogain_loss_cpu.cc and infogain_loss.cu.
//
//   InfogainLoss(scores, labels, H) -> (loss, prob?)
//   InfogainLossGrad(scores, labels, H, loss_diff) -> (scores_diff, loss?)
//
// scores: float32 or float16, any rank, classes on `axis`. labels: float32, one per prediction. H: float32, classes²
// elements. loss, loss_diff: float32 scalars. prob, scores_diff: as scores. The gradient's loss is InfogainLoss's: both
// at once cost little more than one.
#include <cstdio>
#include <string>
#include <vector>

#include "guarded.h"
#include "infogain_loss_cpu.h"
#include "infogain_loss_cuda.h"
#include "ort_abi.h"
#include "python_layer.h"
#include "training.h"

namespace caffeconv {
namespace {

std::string text_of(int64_t value) { return std::to_string(value); }

std::string text_of(float value) {
  char text[32];
  snprintf(text, sizeof(text), "%.9g", static_cast<double>(value));
  return text;
}

std::string text_of(const std::vector<int64_t>& dims) {
  if (dims.empty()) return "scalar";
  std::string text;
  for (const int64_t dim : dims) text += (text.empty() ? "" : "x") + text_of(dim);
  return text;
}

int64_t product(const OrtApi* api, const std::vector<int64_t>& dims, size_t begin, size_t end) {
  int64_t result = 1;
  for (size_t i = begin; i < end; ++i) result = checked_product(api, result, dims[i]);
  return result;
}

struct Tensor {
  void* data;
  int type;
  std::vector<int64_t> dims;
  int64_t count;
};

Tensor tensor_of(const OrtApi* api, OrtValue* value) {
  Tensor tensor = {};
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(ort::GetTensorTypeAndShape::call(api, static_cast<const OrtValue*>(value), &info));
  OrtStatus* status = ort::GetTensorElementType::call(api, info, &tensor.type);
  size_t rank = 0;
  if (status == nullptr) status = ort::GetDimensionsCount::call(api, info, &rank);
  if (status == nullptr) {
    tensor.dims.resize(rank);
    status = ort::GetDimensions::call(api, info, tensor.dims.data(), rank);
  }
  ort::ReleaseTensorTypeAndShapeInfo::call(api, info);
  check(status);
  tensor.count = product(api, tensor.dims, 0, rank);
  check(ort::GetTensorMutableData::call(api, value, &tensor.data));
  return tensor;
}

int64_t integer_attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name, int64_t missing) {
  int64_t value = missing;
  OrtStatus* status = ort::KernelInfoGetAttributeInt64::call(api, info, name, &value);
  if (status == nullptr) return value;
  ort::ReleaseStatus::call(api, status);
  return missing;
}

std::string string_attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name, const char* missing) {
  char text[64] = {};
  size_t size = sizeof(text);
  OrtStatus* status = ort::KernelInfoGetAttributeString::call(api, info, name, text, &size);
  if (status == nullptr) return text;
  ort::ReleaseStatus::call(api, status);
  return missing;
}

// What the node's attributes say; outer, classes and inner are known when the scores are.
struct Attributes {
  int64_t axis;
  InfogainShape shape;
};

Attributes attributes_of(const OrtApi* api, const OrtKernelInfo* info, const std::string& op) {
  Attributes attributes = {};
  attributes.axis = integer_attribute(api, info, "axis", 1);
  if (attributes.axis < 0) {
    refuse(api, op + ": axis is " + text_of(attributes.axis) + "; it must be counted from the front, 0 or more");
  }
  InfogainShape& shape = attributes.shape;
  const std::string normalization = string_attribute(api, info, "normalization", "VALID");
  if (normalization == "FULL") {
    shape.normalization = Normalization::kFull;
  } else if (normalization == "VALID") {
    shape.normalization = Normalization::kValid;
  } else if (normalization == "BATCH_SIZE") {
    shape.normalization = Normalization::kBatchSize;
  } else if (normalization == "NONE") {
    shape.normalization = Normalization::kNone;
  } else {
    refuse(api, op + ": normalization is '" + normalization + "'; it must be FULL, VALID, BATCH_SIZE or NONE");
  }
  const std::string bottom = string_attribute(api, info, "bottom", "logits");
  if (bottom != "logits" && bottom != "probabilities") {
    refuse(api, op + ": bottom is '" + bottom + "'; it must be logits or probabilities");
  }
  shape.probabilities = bottom == "probabilities";
  shape.has_ignore_label = integer_attribute(api, info, "has_ignore_label", 0) != 0;
  const int64_t ignore_label = integer_attribute(api, info, "ignore_label", 0);
  // A label that no int32 holds never occurs (labels are truncated to int32, as in Caffe).
  if (ignore_label < INT32_MIN || ignore_label > INT32_MAX) shape.has_ignore_label = false;
  shape.ignore_label = shape.has_ignore_label ? static_cast<int32_t>(ignore_label) : 0;
  return attributes;
}

// The inputs and outputs of one call, checked.
struct Call {
  const OrtApi* api;
  OrtKernelContext* context;
  std::string op;
  InfogainShape shape;
  Tensor scores;
  Tensor labels;
  Tensor h;
};

Tensor input_of(const OrtApi* api, OrtKernelContext* context, size_t index) {
  const OrtValue* value = nullptr;
  check(ort::KernelContextGetInput::call(api, static_cast<const OrtKernelContext*>(context), index, &value));
  return tensor_of(api, const_cast<OrtValue*>(value));
}

// The data of output `index`, or null where the node does not name it.
void* output_of(const Call& call, size_t index, const std::vector<int64_t>& dims) {
  static const int64_t none = 0;
  OrtValue* value = nullptr;
  check(ort::KernelContextGetOutput::call(call.api, call.context, index, dims.empty() ? &none : dims.data(),
                                          dims.size(), &value));
  if (value == nullptr) return nullptr;
  void* data = nullptr;
  check(ort::GetTensorMutableData::call(call.api, value, &data));
  return data;
}

Call checked_call(const OrtApi* api, OrtKernelContext* context, const std::string& op, const Attributes& attributes) {
  Call call = {api, context, op, attributes.shape, {}, {}, {}};
  call.scores = input_of(api, context, 0);
  call.labels = input_of(api, context, 1);
  call.h = input_of(api, context, 2);
  const std::vector<int64_t>& dims = call.scores.dims;
  const std::string scores = "scores of shape " + text_of(dims);
  if (attributes.axis >= static_cast<int64_t>(dims.size())) {
    refuse(api, op + ": axis is " + text_of(attributes.axis) + ", but " + scores + " have " +
                    text_of(static_cast<int64_t>(dims.size())) + " axes");
  }
  const size_t axis = static_cast<size_t>(attributes.axis);
  InfogainShape& shape = call.shape;
  shape.outer = product(api, dims, 0, axis);
  shape.classes = dims[axis];
  shape.inner = product(api, dims, axis + 1, dims.size());
  const int64_t predictions = checked_product(api, shape.outer, shape.inner);
  if (shape.classes == 0 && predictions > 0) {
    refuse(api, op + ": " + scores + " have no classes on axis " + text_of(attributes.axis));
  }
  if (call.labels.count != predictions) {
    refuse(api, op + ": " + text_of(call.labels.count) + " labels (shape " + text_of(call.labels.dims) + ") for " +
                    text_of(predictions) + " predictions; " + scores + " with classes on axis " +
                    text_of(attributes.axis) + " need one label for each of " + text_of(shape.outer) + "x" +
                    text_of(shape.inner));
  }
  if (shape.classes > INT32_MAX || call.h.count != shape.classes * shape.classes) {
    refuse(api, op + ": H has " + text_of(call.h.count) + " elements (shape " + text_of(call.h.dims) + "); " + scores +
                    " have " + text_of(shape.classes) + " classes on axis " + text_of(attributes.axis) +
                    " and need an H of " + text_of(shape.classes) + "x" + text_of(shape.classes));
  }
  return call;
}

[[noreturn]] void refuse_label(const Call& call, int64_t position, float label) {
  std::string message = call.op + ": label " + text_of(label) + " at position " + text_of(position);
  if (call.labels.dims.size() > 1) {
    std::string index;
    int64_t rest = position;
    for (size_t i = call.labels.dims.size(); i-- > 0; rest /= call.labels.dims[i]) {
      index = text_of(rest % call.labels.dims[i]) + (index.empty() ? "" : ", ") + index;
    }
    message += " (" + index + ")";
  }
  message += " is outside 0.." + text_of(call.shape.classes - 1);
  if (call.shape.has_ignore_label) {
    message += " and is not the ignore_label " + text_of(static_cast<int64_t>(call.shape.ignore_label));
  }
  refuse(call.api, message);
}

// ---- CPU ------------------------------------------------------------------------------------------------------------
using Step = void (*)(const InfogainJob& job, int64_t begin, int64_t end, InfogainPart* part);

struct Work {
  const InfogainJob* job;
  Step step;
  int64_t predictions;
  int64_t chunk;
  std::vector<InfogainPart> parts;
};

void run_chunk(void* user, size_t index) {
  Work& work = *static_cast<Work*>(user);
  const int64_t begin = static_cast<int64_t>(index) * work.chunk;
  const int64_t end = begin + work.chunk < work.predictions ? begin + work.chunk : work.predictions;
  work.step(*work.job, begin, end, &work.parts[index]);
}

// All predictions, in chunks over onnxruntime's own threads; the sums are added in the chunks' order.
InfogainPart run_all(const Call& call, const InfogainJob& job, Step step, int64_t chunk) {
  const int64_t predictions = job.shape.outer * job.shape.inner;
  InfogainPart total = {0, 0, -1};
  if (predictions == 0) return total;
  Work work = {&job, step, predictions, chunk, {}};
  work.parts.resize(static_cast<size_t>((predictions + chunk - 1) / chunk));
  if (work.parts.size() == 1) {
    run_chunk(&work, 0);
  } else {
    check(ort::KernelContextParallelFor::call(call.api, static_cast<const OrtKernelContext*>(call.context), &run_chunk,
                                              work.parts.size(), size_t{0}, static_cast<void*>(&work)));
  }
  for (const InfogainPart& part : work.parts) {
    total.loss += part.loss;
    total.valid += part.valid;
    if (total.bad_label < 0) total.bad_label = part.bad_label;
  }
  if (total.bad_label >= 0) refuse_label(call, total.bad_label, job.labels[total.bad_label]);
  return total;
}

// `columns` is the memory that the job's view of H may need.
InfogainJob job_of(const Call& call, const InfogainKernels& kernels, std::vector<float>& columns) {
  InfogainJob job = {};
  job.shape = call.shape;
  job.scores = call.scores.data;
  job.half = call.scores.type == ort::kFloat16;
  job.labels = static_cast<const float*>(call.labels.data);
  job.h = static_cast<const float*>(call.h.data);
  job.columns_width = kernels.table_width(call.shape);
  if (job.columns_width > 0 && call.scores.count > 0) {
    columns.resize(static_cast<size_t>(call.shape.classes * job.columns_width));
    fill_columns(call.shape, job.h, job.columns_width, columns.data());
    job.columns = columns.data();
  }
  return job;
}

struct CpuDevice {
  static constexpr const char* kProvider = nullptr;

  static void loss(const Call& call, float* loss, void* prob) {
    const InfogainKernels& kernels = infogain_kernels(best_build());
    std::vector<float> columns;
    InfogainJob job = job_of(call, kernels, columns);
    job.want_loss = true;
    job.output = prob == nullptr ? Output::kNone : Output::kProbabilities;
    job.out = prob;
    const InfogainPart total = run_all(call, job, kernels.run, chunk_predictions(call.shape));
    *loss = static_cast<float>(total.loss / normalizer(call.shape, total.valid));
  }

  static void gradient(const Call& call, const float* loss_diff, void* scores_diff, float* loss) {
    const InfogainKernels& kernels = infogain_kernels(best_build());
    std::vector<float> columns;
    InfogainJob job = job_of(call, kernels, columns);
    // Without a label to ignore all of them count: where one is illegal, there will be no result.
    int64_t valid = call.shape.outer * call.shape.inner;
    if (call.shape.normalization == Normalization::kValid && call.shape.has_ignore_label) {
      valid = run_all(call, job, kernels.count, 1 << 16).valid;
    }
    job.want_loss = loss != nullptr;
    job.output = Output::kGradient;
    job.out = scores_diff;
    job.gradient_scale = static_cast<float>(*loss_diff / normalizer(call.shape, valid));
    const InfogainPart total = run_all(call, job, kernels.run, chunk_predictions(call.shape));
    if (loss != nullptr) *loss = static_cast<float>(total.loss / normalizer(call.shape, total.valid));
  }
};

// ---- CUDA -----------------------------------------------------------------------------------------------------------
#if defined(CAFFECONV_WITH_CUDA)
struct CudaDevice {
  static constexpr const char* kProvider = "CUDAExecutionProvider";

  static CudaJob job_of(const Call& call) {
    CudaJob job = {};
    job.shape = call.shape;
    job.scores = call.scores.data;
    job.half = call.scores.type == ort::kFloat16;
    job.labels = static_cast<const float*>(call.labels.data);
    job.h = static_cast<const float*>(call.h.data);
    check(ort::KernelContextGetGpuComputeStream::call(call.api, static_cast<const OrtKernelContext*>(call.context),
                                                      &job.stream));
    return job;
  }

  static void finish(const Call& call, const CudaResult& result) {
    if (result.error != nullptr) {
      const std::string message = call.op + ": CUDA says: " + result.error;
      throw Failure{ort::CreateStatus::call(call.api, int{ort::kFail}, message.c_str())};
    }
    if (result.bad_label >= 0) refuse_label(call, result.bad_label, result.bad_value);
  }

  static void loss(const Call& call, float* loss, void* prob) {
    CudaJob job = job_of(call);
    job.loss = loss;
    job.prob = prob;
    finish(call, infogain_loss_cuda(job));
  }

  static void gradient(const Call& call, const float* loss_diff, void* scores_diff, float* loss) {
    CudaJob job = job_of(call);
    job.loss = loss;
    job.loss_diff = loss_diff;
    job.scores_diff = scores_diff;
    finish(call, infogain_loss_grad_cuda(job));
  }
};
#endif

// ---- The operators
// ----------------------------------------------------------------------------------------------------
struct Kernel {
  const OrtApi* api;
  std::string op;
  Attributes attributes;
};

template <typename Device>
struct Loss {
  using Target = Device;
  static constexpr const char* kName = "InfogainLoss";
  static constexpr size_t kInputs = 3;
  static constexpr size_t kOutputs = 2;
  static constexpr bool kLikeScores[] = {false, true};
  static constexpr int kCharacteristic[] = {ort::kRequired, ort::kOptional};

  static void compute(const Call& call) {
    float* loss = static_cast<float*>(output_of(call, 0, {}));
    void* prob = output_of(call, 1, call.scores.dims);
    Device::loss(call, loss, prob);
  }
};

template <typename Device>
struct LossGrad {
  using Target = Device;
  static constexpr const char* kName = "InfogainLossGrad";
  static constexpr size_t kInputs = 4;
  static constexpr size_t kOutputs = 2;
  static constexpr bool kLikeScores[] = {true, false};
  static constexpr int kCharacteristic[] = {ort::kRequired, ort::kOptional};

  static void compute(const Call& call) {
    const Tensor loss_diff = input_of(call.api, call.context, 3);
    if (loss_diff.count != 1) {
      refuse(call.api,
             call.op + ": the loss's gradient has shape " + text_of(loss_diff.dims) + "; it must be a scalar");
    }
    void* scores_diff = output_of(call, 0, call.scores.dims);
    float* loss = static_cast<float*>(output_of(call, 1, {}));
    Device::gradient(call, static_cast<const float*>(loss_diff.data), scores_diff, loss);
  }
};

template <typename Op, int ScoreType>
const OrtCustomOp* custom_op() {
  static const OrtCustomOp op = [] {
    OrtCustomOp made = {};
    made.version = ort::kApiVersion;
    made.GetName = [](const OrtCustomOp*) { return Op::kName; };
    made.GetExecutionProviderType = [](const OrtCustomOp*) { return Op::Target::kProvider; };
    made.GetInputTypeCount = [](const OrtCustomOp*) { return Op::kInputs; };
    made.GetInputType = [](const OrtCustomOp*, size_t i) { return i == 0 ? ScoreType : int{ort::kFloat}; };
    made.GetOutputTypeCount = [](const OrtCustomOp*) { return Op::kOutputs; };
    made.GetOutputType = [](const OrtCustomOp*, size_t i) { return Op::kLikeScores[i] ? ScoreType : int{ort::kFloat}; };
    made.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return int{ort::kRequired}; };
    made.GetOutputCharacteristic = [](const OrtCustomOp*, size_t i) { return Op::kCharacteristic[i]; };
    made.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };
    made.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
    made.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
    made.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
    made.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
    made.GetStartVersion = [](const OrtCustomOp*) { return 1; };
    made.GetEndVersion = [](const OrtCustomOp*) { return INT32_MAX; };
    made.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
      return guarded(api, [&] { *kernel = new Kernel{api, Op::kName, attributes_of(api, info, Op::kName)}; });
    };
    made.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      const Kernel& self = *static_cast<const Kernel*>(kernel);
      return guarded(self.api, [&] { Op::compute(checked_call(self.api, context, self.op, self.attributes)); });
    };
    made.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    // Never called where the V2 pair is there, but a null callback would be.
    made.CreateKernel = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*) -> void* { return nullptr; };
    made.KernelCompute = [](void*, OrtKernelContext*) {};
    return made;
  }();
  return &op;
}

template <typename Device>
void add_ops(const OrtApi* api, OrtCustomOpDomain* domain) {
  check(ort::CustomOpDomainAdd::call(api, domain, custom_op<Loss<Device>, ort::kFloat>()));
  check(ort::CustomOpDomainAdd::call(api, domain, custom_op<Loss<Device>, ort::kFloat16>()));
  check(ort::CustomOpDomainAdd::call(api, domain, custom_op<LossGrad<Device>, ort::kFloat>()));
  check(ort::CustomOpDomainAdd::call(api, domain, custom_op<LossGrad<Device>, ort::kFloat16>()));
}

}  // namespace
}  // namespace caffeconv

// What SessionOptions.register_custom_ops_library looks for.
extern "C" ORT_EXPORT OrtStatus* ORT_CALL RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ort::kApiVersion);
  if (api == nullptr) {
    // Too old even for the table that a status is made with: version 1 has CreateStatus in the same slot.
    const std::string message = std::string("caffeconv's operators need onnxruntime ") + ort::kOldestRuntime +
                                " or later; this one is " + base->GetVersionString();
    return ort::CreateStatus::call(base->GetApi(1), int{ort::kFail}, message.c_str());
  }
  return caffeconv::guarded(api, [&] {
    // A domain lives as long as the sessions that were made with it, and they do not say how long that is: one domain
    // for the life of the process, used by every session.
    static OrtCustomOpDomain* const domain = [&] {
      OrtCustomOpDomain* made = nullptr;
      caffeconv::check(ort::CreateCustomOpDomain::call(api, "caffeconv", &made));
      caffeconv::add_ops<caffeconv::CpuDevice>(api, made);
      caffeconv::check(caffeconv::add_python_ops(api, made));
      caffeconv::check(caffeconv::add_training_ops(api, made));
#if defined(CAFFECONV_WITH_CUDA)
      caffeconv::add_ops<caffeconv::CudaDevice>(api, made);
#endif
      return made;
    }();
    caffeconv::check(ort::AddCustomOpDomain::call(api, options, domain));
  });
}
