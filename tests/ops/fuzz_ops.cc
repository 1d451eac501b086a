// The operators as a model of a stranger's may call them: attributes, shapes and values out of a fuzzer's bytes, handed
// over by a stand-in for onnxruntime. Every tensor has exactly the bytes that its shape says, so that AddressSanitizer
// sees the first one beyond. libFuzzer's entry point; fuzz_main.cc drives it where there is no libFuzzer.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "infogain_loss_cpu.h"
#include "ort_abi.h"

extern "C" OrtStatus* ORT_CALL RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base);

struct OrtStatus {
  std::string message;
};

struct OrtTensorTypeAndShapeInfo {
  int type;
  std::vector<int64_t> dims;
};

struct OrtValue {
  OrtTensorTypeAndShapeInfo info;
  std::unique_ptr<uint8_t[]> data;
};

struct OrtKernelInfo {
  std::map<std::string, int64_t> numbers;
  std::map<std::string, std::string> texts;
};

struct OrtKernelContext {
  std::vector<std::unique_ptr<OrtValue>> inputs, outputs;
  std::vector<int> output_types;  // ort::kUndefined: the node does not name it
};

namespace {

// ---- What the fuzzer's bytes say -------------------------------------------------------------------------------------
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint8_t next() { return at_ < size_ ? data_[at_++] : 0; }
  int64_t below(int64_t end) { return next() % end; }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

constexpr int64_t kMostElements = 1 << 14;

int64_t count_of(const std::vector<int64_t>& dims) {
  int64_t count = 1;
  for (const int64_t dim : dims) {
    if (dim == 0) return 0;
    if (count > kMostElements / dim) return -1;
    count *= dim;
  }
  return count;
}

float value_from(Bytes& bytes) {
  static const float special[] = {0.f,   -0.f,  1.f,    -1.f,   NAN,     INFINITY, -INFINITY, 1e-38f,
                                  1e38f, 2.5f,  -2.5f,  1e-45f, 65504.f, 2e9f,     -3e9f,     88.f};
  const uint8_t kind = bytes.next();
  if (kind < 16) return special[kind];
  if (kind < 32) {
    uint32_t bits = 0;
    for (int i = 0; i < 4; ++i) bits = bits << 8 | bytes.next();
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
  }
  return static_cast<float>(kind % 12) - 2.f;  // labels are small whole numbers, mostly
}

// Dims as an onnxruntime tensor may have them: some small ones, or none beside a 0 of which no element is left.
std::vector<int64_t> dims_from(Bytes& bytes, size_t most_rank) {
  std::vector<int64_t> dims(static_cast<size_t>(bytes.below(static_cast<int64_t>(most_rank) + 1)));
  for (int64_t& dim : dims) {
    const uint8_t kind = bytes.next();
    dim = kind < 200 ? kind % 8 : kind < 250 ? kind : INT64_C(1) << (kind - 250) * 12;
  }
  if (count_of(dims) < 0) dims[0] = 0;  // onnxruntime multiplies from the front, and 0 times anything is 0
  return dims;
}

std::unique_ptr<OrtValue> tensor(int type, const std::vector<int64_t>& dims) {
  auto value = std::make_unique<OrtValue>();
  value->info = {type, dims};
  const size_t size = static_cast<size_t>(count_of(dims)) * (type == ort::kFloat16 ? 2 : 4);
  value->data.reset(new uint8_t[size]());
  return value;
}

std::unique_ptr<OrtValue> filled(Bytes& bytes, int type, const std::vector<int64_t>& dims) {
  auto value = tensor(type, dims);
  const int64_t count = count_of(dims), varied = std::min<int64_t>(count, 64);
  for (int64_t i = 0; i < count; ++i) {
    if (type == ort::kFloat16) {
      const uint16_t bits = i < varied ? static_cast<uint16_t>(bytes.next() << 8 | bytes.next()) : 0x3c00;
      memcpy(value->data.get() + 2 * i, &bits, sizeof(bits));
    } else {
      const float number = i < varied ? value_from(bytes) : static_cast<float>(i % 3);
      memcpy(value->data.get() + 4 * i, &number, sizeof(number));
    }
  }
  return value;
}

// ---- The stand-in for onnxruntime ------------------------------------------------------------------------------------
std::vector<const OrtCustomOp*>& registered() {
  static std::vector<const OrtCustomOp*> ops;
  return ops;
}

OrtStatus* failure(const std::string& message) { return new OrtStatus{message}; }

OrtStatus* create_status(int, const char* message) { return failure(message); }
void release_status(OrtStatus* status) { delete status; }
OrtStatus* create_domain(const char*, OrtCustomOpDomain** domain) {
  static int there;
  *domain = reinterpret_cast<OrtCustomOpDomain*>(&there);
  return nullptr;
}
OrtStatus* add_op(OrtCustomOpDomain*, const OrtCustomOp* op) {
  registered().push_back(op);
  return nullptr;
}
OrtStatus* add_domain(OrtSessionOptions*, OrtCustomOpDomain*) { return nullptr; }
OrtStatus* mutable_data(OrtValue* value, void** data) {
  *data = value->data.get();
  return nullptr;
}
OrtStatus* element_type(const OrtTensorTypeAndShapeInfo* info, int* type) {
  *type = info->type;
  return nullptr;
}
OrtStatus* dimensions_count(const OrtTensorTypeAndShapeInfo* info, size_t* count) {
  *count = info->dims.size();
  return nullptr;
}
OrtStatus* dimensions(const OrtTensorTypeAndShapeInfo* info, int64_t* dims, size_t count) {
  std::copy_n(info->dims.begin(), std::min(count, info->dims.size()), dims);
  return nullptr;
}
OrtStatus* element_count(const OrtTensorTypeAndShapeInfo* info, size_t* count) {
  *count = static_cast<size_t>(count_of(info->dims));
  return nullptr;
}
OrtStatus* type_and_shape(const OrtValue* value, OrtTensorTypeAndShapeInfo** info) {
  *info = new OrtTensorTypeAndShapeInfo(value->info);
  return nullptr;
}
void release_info(OrtTensorTypeAndShapeInfo* info) { delete info; }
OrtStatus* integer_attribute(const OrtKernelInfo* info, const char* name, int64_t* out) {
  const auto found = info->numbers.find(name);
  if (found == info->numbers.end()) return failure("no such attribute");
  *out = found->second;
  return nullptr;
}
OrtStatus* string_attribute(const OrtKernelInfo* info, const char* name, char* out, size_t* size) {
  const auto found = info->texts.find(name);
  if (found == info->texts.end()) return failure("no such attribute");
  if (found->second.size() + 1 > *size) return failure("too long");
  memcpy(out, found->second.c_str(), found->second.size() + 1);
  *size = found->second.size() + 1;
  return nullptr;
}
OrtStatus* input_count(const OrtKernelContext* context, size_t* count) {
  *count = context->inputs.size();
  return nullptr;
}
OrtStatus* output_count(const OrtKernelContext* context, size_t* count) {
  *count = context->output_types.size();
  return nullptr;
}
OrtStatus* get_input(const OrtKernelContext* context, size_t index, const OrtValue** value) {
  *value = context->inputs.at(index).get();
  return nullptr;
}
OrtStatus* get_output(OrtKernelContext* context, size_t index, const int64_t* dims, size_t rank, OrtValue** value) {
  *value = nullptr;
  if (context->output_types.at(index) == ort::kUndefined) return nullptr;
  context->outputs.push_back(tensor(context->output_types[index], {dims, dims + rank}));
  *value = context->outputs.back().get();
  return nullptr;
}
OrtStatus* parallel_for(const OrtKernelContext*, void (*run)(void*, size_t), size_t total, size_t, void* user) {
  for (size_t i = total; i-- > 0;) run(user, i);  // the last first: one that writes into the next is found out
  return nullptr;
}

const OrtApi* api_of_version(uint32_t) {
  static void* table[300];
  const auto set = [](int slot, auto* function) { table[slot] = reinterpret_cast<void*>(function); };
  set(0, create_status), set(26, create_domain), set(27, add_op), set(28, add_domain), set(51, mutable_data);
  set(60, element_type), set(61, dimensions_count), set(62, dimensions), set(64, element_count);
  set(65, type_and_shape), set(86, integer_attribute), set(87, string_attribute), set(88, input_count);
  set(89, output_count), set(90, get_input), set(91, get_output), set(93, release_status), set(99, release_info);
  set(274, parallel_for);
  return reinterpret_cast<const OrtApi*>(table);
}

const std::vector<const OrtCustomOp*>& ops() {
  static const bool once = [] {
    static const OrtApiBase base = {api_of_version, [] { return "1.17"; }};
    delete RegisterCustomOps(nullptr, &base);
    return true;
  }();
  (void)once;
  return registered();
}

// ---- One call --------------------------------------------------------------------------------------------------------
OrtKernelInfo attributes_from(Bytes& bytes) {
  static const char* const normalizations[] = {"FULL", "VALID", "BATCH_SIZE", "NONE", "HALF", ""};
  static const char* const bottoms[] = {"logits", "probabilities", "odds"};
  OrtKernelInfo info;
  const auto number = [&](const char* name, int64_t value) {
    if (bytes.next() < 200) info.numbers[name] = value;
  };
  static const int64_t far[] = {INT64_MIN, INT64_MAX, INT32_MIN, INT64_C(1) << 40};
  const auto small = [&] {
    const uint8_t kind = bytes.next();
    return kind < 230 ? int64_t{kind % 6} - 1 : far[kind % 4];
  };
  number("axis", small());
  number("has_ignore_label", bytes.below(2));
  number("ignore_label", small());
  if (bytes.next() < 200) info.texts["normalization"] = normalizations[bytes.below(6)];
  if (bytes.next() < 100) info.texts["bottom"] = bottoms[bytes.below(3)];
  for (const char* name : {"kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w",
                           "group", "height", "width"}) {
    number(name, small());
  }
  return info;
}

// Shapes that fit each other, mostly: an operator that refuses everything shows nothing.
void add_inputs(Bytes& bytes, const OrtCustomOp* op, const OrtKernelInfo& info, OrtKernelContext& context) {
  const std::string name = op->GetName(op);
  const std::vector<int64_t> first = dims_from(bytes, 5);
  const auto axis = info.numbers.find("axis");
  const size_t at = axis == info.numbers.end() ? 1 : static_cast<size_t>(axis->second);  // beyond the end, if negative
  for (size_t i = 0; i < op->GetInputTypeCount(op); ++i) {
    std::vector<int64_t> dims = i == 0 || bytes.next() > 240 ? dims_from(bytes, 5) : first;
    if (i == 0) dims = first;
    if (name.find("Infogain") == 0 && i > 0 && bytes.next() < 240) {
      dims = first;
      const int64_t classes = at < first.size() ? first[at] : 1;
      if (i == 1 && at < dims.size()) dims.erase(dims.begin() + static_cast<int64_t>(at));
      if (i == 2) dims = {classes, classes};
      if (i == 3) dims = {};
    }
    if (name == "MaxPoolGrad" && i == 1 && dims.size() == 4) dims[2] = bytes.below(6), dims[3] = bytes.below(6);
    if (name == "ConvWeightGrad" && i == 1 && dims.size() == 4) dims = {first[0], bytes.below(40), bytes.below(9), bytes.below(9)};
    if (name == "ConvBottomGrad" && i == 1 && first.size() == 4) {
      const auto of = [&](const char* attribute) { return info.numbers.count(attribute) ? info.numbers.at(attribute) : 1; };
      dims = {first[1], bytes.below(40), of("kernel_h"), of("kernel_w")};
    }
    if (name == "SGDUpdate" && i > 2) dims = {};
    if (count_of(dims) < 0) dims = {0};
    context.inputs.push_back(filled(bytes, op->GetInputType(op, i), dims));
  }
}

// The same call on every build of the kernels that this processor runs: onnxruntime takes the best one alone.
void run_all_builds(const OrtKernelInfo& info, const OrtKernelContext& context) {
  using namespace caffeconv;
  const OrtValue& scores = *context.inputs[0];
  const std::vector<int64_t>& dims = scores.info.dims;
  const auto axis = info.numbers.find("axis");
  const size_t at = axis == info.numbers.end() ? 1 : static_cast<size_t>(axis->second);
  InfogainJob job = {};
  job.shape = {1, dims[at], 1, Normalization::kValid, true, 0, info.texts.count("bottom") > 0};
  for (size_t i = 0; i < at; ++i) job.shape.outer *= dims[i];
  for (size_t i = at + 1; i < dims.size(); ++i) job.shape.inner *= dims[i];
  const int64_t predictions = job.shape.outer * job.shape.inner;
  if (predictions == 0) return;
  job.half = scores.info.type == ort::kFloat16;
  job.scores = scores.data.get();
  job.labels = reinterpret_cast<const float*>(context.inputs[1]->data.get());
  job.h = reinterpret_cast<const float*>(context.inputs[2]->data.get());
  job.want_loss = true;
  job.gradient_scale = 1;
  Isa builds[3];
  const int number = runnable_builds(builds);
  for (int b = 0; b < number; ++b) {
    const InfogainKernels& kernels = infogain_kernels(builds[b]);
    job.columns_width = kernels.table_width(job.shape);
    std::unique_ptr<float[]> columns(new float[static_cast<size_t>(job.columns_width * job.shape.classes)]);
    fill_columns(job.shape, job.h, job.columns_width, columns.get());
    job.columns = columns.get();
    for (const Output output : {Output::kNone, Output::kProbabilities, Output::kGradient}) {
      const auto out = tensor(scores.info.type, dims);
      job.output = output;
      job.out = out->data.get();
      InfogainPart part = {};
      kernels.run(job, 0, predictions, &part);
      kernels.count(job, 0, predictions, &part);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  const OrtCustomOp* op = ops()[static_cast<size_t>(bytes.below(static_cast<int64_t>(ops().size())))];
  const std::string name = op->GetName(op);
  if (name.rfind("Python", 0) == 0) return 0;  // it calls back into a session of ours
  const OrtApi* api = api_of_version(ort::kApiVersion);
  const OrtKernelInfo info = attributes_from(bytes);
  void* kernel = nullptr;
  if (OrtStatus* status = op->CreateKernelV2(op, api, &info, &kernel)) {
    delete status;
    return 0;
  }
  OrtKernelContext context;
  for (size_t i = 0; i < op->GetOutputTypeCount(op); ++i) {
    const bool is_there = op->GetOutputCharacteristic(op, i) == ort::kRequired || bytes.next() % 2 == 0;
    context.output_types.push_back(is_there ? op->GetOutputType(op, i) : int{ort::kUndefined});
  }
  add_inputs(bytes, op, info, context);
  OrtStatus* status = op->KernelComputeV2(kernel, &context);
  if (status == nullptr && name == "InfogainLoss") run_all_builds(info, context);
  delete status;
  op->KernelDestroy(kernel);
  return 0;
}
