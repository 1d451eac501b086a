// The part of onnxruntime's C interface that a custom-op library needs, declared here because onnxruntime's wheels
// carry no headers. OrtApi is a table of function pointers that only ever grows at its end, so a slot's number is a
// promise; OrtCustomOp is a struct of callbacks whose first field says how much of it there is. Interface facts,
// nothing else.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(_WIN32)
#define ORT_CALL __stdcall
#define ORT_EXPORT __declspec(dllexport)
#else
#define ORT_CALL
#define ORT_EXPORT __attribute__((visibility("default")))
#endif

extern "C" {
struct OrtStatus;
struct OrtSessionOptions;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtCustomOpDomain;
struct OrtValue;
struct OrtTensorTypeAndShapeInfo;
struct OrtShapeInferContext;

struct OrtApi {
  void* slot[1];  // as many as the version has; see Slot below
};

struct OrtApiBase {
  const OrtApi*(ORT_CALL* GetApi)(uint32_t version);
  const char*(ORT_CALL* GetVersionString)();
};

struct OrtCustomOp {
  uint32_t version;
  void*(ORT_CALL* CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char*(ORT_CALL* GetName)(const OrtCustomOp*);
  const char*(ORT_CALL* GetExecutionProviderType)(const OrtCustomOp*);
  int(ORT_CALL* GetInputType)(const OrtCustomOp*, size_t);
  size_t(ORT_CALL* GetInputTypeCount)(const OrtCustomOp*);
  int(ORT_CALL* GetOutputType)(const OrtCustomOp*, size_t);
  size_t(ORT_CALL* GetOutputTypeCount)(const OrtCustomOp*);
  void(ORT_CALL* KernelCompute)(void*, OrtKernelContext*);
  void(ORT_CALL* KernelDestroy)(void*);
  int(ORT_CALL* GetInputCharacteristic)(const OrtCustomOp*, size_t);
  int(ORT_CALL* GetOutputCharacteristic)(const OrtCustomOp*, size_t);
  int(ORT_CALL* GetInputMemoryType)(const OrtCustomOp*, size_t);
  int(ORT_CALL* GetVariadicInputMinArity)(const OrtCustomOp*);
  int(ORT_CALL* GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int(ORT_CALL* GetVariadicOutputMinArity)(const OrtCustomOp*);
  int(ORT_CALL* GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus*(ORT_CALL* CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void**);
  OrtStatus*(ORT_CALL* KernelComputeV2)(void*, OrtKernelContext*);
  OrtStatus*(ORT_CALL* InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int(ORT_CALL* GetStartVersion)(const OrtCustomOp*);
  int(ORT_CALL* GetEndVersion)(const OrtCustomOp*);
  size_t(ORT_CALL* GetMayInplace)(int**, int**);
  void(ORT_CALL* ReleaseMayInplace)(int*, int*);
  size_t(ORT_CALL* GetAliasMap)(int**, int**);
  void(ORT_CALL* ReleaseAliasMap)(int*, int*);
};
}

namespace ort {

// The lowest version that has every slot below; onnxruntime 1.17 was the first to offer it.
constexpr uint32_t kApiVersion = 17;
constexpr char kOldestRuntime[] = "1.17";

enum ErrorCode { kFail = 1, kInvalidArgument = 2 };
enum ElementType { kUndefined = 0, kFloat = 1, kFloat16 = 10 };
enum Characteristic { kRequired = 0, kOptional = 1, kVariadic = 2 };

// Number of the slot in OrtApi, and the function's type.
template <int Number, typename Function>
struct Slot {
  template <typename... Arguments>
  static auto call(const OrtApi* api, Arguments... arguments) {
    return reinterpret_cast<Function*>(api->slot[Number])(arguments...);
  }
};

using CreateStatus = Slot<0, OrtStatus* ORT_CALL(int code, const char* message)>;
using CreateCustomOpDomain = Slot<26, OrtStatus* ORT_CALL(const char* name, OrtCustomOpDomain** domain)>;
using CustomOpDomainAdd = Slot<27, OrtStatus* ORT_CALL(OrtCustomOpDomain* domain, const OrtCustomOp* op)>;
using AddCustomOpDomain = Slot<28, OrtStatus* ORT_CALL(OrtSessionOptions* options, OrtCustomOpDomain* domain)>;
using GetTensorMutableData = Slot<51, OrtStatus* ORT_CALL(OrtValue* value, void** data)>;
using GetTensorElementType = Slot<60, OrtStatus* ORT_CALL(const OrtTensorTypeAndShapeInfo* info, int* type)>;
using GetDimensionsCount = Slot<61, OrtStatus* ORT_CALL(const OrtTensorTypeAndShapeInfo* info, size_t* count)>;
using GetDimensions =
    Slot<62, OrtStatus* ORT_CALL(const OrtTensorTypeAndShapeInfo* info, int64_t* dims, size_t count)>;
using GetTensorShapeElementCount = Slot<64, OrtStatus* ORT_CALL(const OrtTensorTypeAndShapeInfo* info, size_t* count)>;
using GetTensorTypeAndShape = Slot<65, OrtStatus* ORT_CALL(const OrtValue* value, OrtTensorTypeAndShapeInfo** info)>;
using KernelInfoGetAttributeInt64 =
    Slot<86, OrtStatus* ORT_CALL(const OrtKernelInfo* info, const char* name, int64_t* out)>;
using KernelInfoGetAttributeString =
    Slot<87, OrtStatus* ORT_CALL(const OrtKernelInfo* info, const char* name, char* out, size_t* size)>;
using KernelContextGetInputCount = Slot<88, OrtStatus* ORT_CALL(const OrtKernelContext* context, size_t* count)>;
using KernelContextGetOutputCount = Slot<89, OrtStatus* ORT_CALL(const OrtKernelContext* context, size_t* count)>;
using KernelContextGetInput =
    Slot<90, OrtStatus* ORT_CALL(const OrtKernelContext* context, size_t index, const OrtValue** value)>;
using KernelContextGetOutput = Slot<91, OrtStatus* ORT_CALL(OrtKernelContext* context, size_t index,
                                                             const int64_t* dims, size_t rank, OrtValue** value)>;
using ReleaseStatus = Slot<93, void ORT_CALL(OrtStatus* status)>;
using ReleaseTensorTypeAndShapeInfo = Slot<99, void ORT_CALL(OrtTensorTypeAndShapeInfo* info)>;
using ReleaseCustomOpDomain = Slot<101, void ORT_CALL(OrtCustomOpDomain* domain)>;
using KernelContextGetGpuComputeStream =
    Slot<193, OrtStatus* ORT_CALL(const OrtKernelContext* context, void** stream)>;
using KernelContextParallelFor =
    Slot<274, OrtStatus* ORT_CALL(const OrtKernelContext* context, void (*run)(void*, size_t), size_t total,
                                   size_t batches, void* user)>;

}  // namespace ort
