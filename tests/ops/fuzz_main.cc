// Drives LLVMFuzzerTestOneInput where the compiler brings no libFuzzer: changes inputs at random and keeps those that
// reach code which none before did, by GCC's -fsanitize-coverage=trace-pc. Usage: fuzz_ops [SECONDS [SEED]] | FILE…
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kMostBytes = 512;
constexpr size_t kPlaces = 1 << 20;
bool seen[kPlaces];
size_t places = 0;

using Input = std::vector<uint8_t>;

// The input that is being run, for whoever looks at what is left of a run that ended badly.
void keep(const Input& input) {
  static const char* const path = std::getenv("CAFFECONV_FUZZ_LAST");
  if (path == nullptr) return;
  if (FILE* file = std::fopen(path, "wb")) {
    std::fwrite(input.data(), 1, input.size(), file);
    std::fclose(file);
  }
}

Input changed(const std::vector<Input>& corpus, std::mt19937& random) {
  Input input = corpus[random() % corpus.size()];
  for (size_t n = random() % 8 + 1; n > 0; --n) {
    const size_t at = input.empty() ? 0 : random() % input.size();
    switch (random() % 6) {
      case 0:
        if (!input.empty()) input[at] = static_cast<uint8_t>(input[at] ^ 1u << random() % 8);
        break;
      case 1:
        if (!input.empty()) input[at] = static_cast<uint8_t>(random());
        break;
      case 2:
        input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), static_cast<uint8_t>(random()));
        break;
      case 3:
        if (!input.empty()) input.erase(input.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 4:
        for (size_t i = 0; i < 16; ++i) input.push_back(static_cast<uint8_t>(random()));
        break;
      default: {
        const Input& other = corpus[random() % corpus.size()];
        for (size_t i = at; i < other.size() && i < input.size(); ++i) input[i] = other[i];
      }
    }
  }
  if (input.size() > kMostBytes) input.resize(kMostBytes);
  return input;
}

int run_file(const char* path) {
  FILE* file = std::fopen(path, "rb");
  if (file == nullptr) return std::perror(path), 2;
  Input input(1 << 20);
  input.resize(std::fread(input.data(), 1, input.size(), file));
  std::fclose(file);
  LLVMFuzzerTestOneInput(input.data(), input.size());
  return 0;
}

}  // namespace

extern "C" void __sanitizer_cov_trace_pc() {
  const auto place = reinterpret_cast<uintptr_t>(__builtin_return_address(0)) % kPlaces;
  places += seen[place] ? 0 : 1;
  seen[place] = true;
}

int main(int argc, char** argv) {
  char* end = nullptr;
  const double seconds = argc > 1 ? std::strtod(argv[1], &end) : 60;
  if (argc > 1 && *end != '\0') {
    for (int i = 1; i < argc; ++i) {
      if (const int code = run_file(argv[i])) return code;
    }
    return 0;
  }
  std::mt19937 random(argc > 2 ? static_cast<uint32_t>(std::atoi(argv[2])) : 0);
  std::vector<Input> corpus = {Input()};
  size_t executions = 0;
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds) {
    const Input input = changed(corpus, random);
    const size_t before = places;
    keep(input);
    LLVMFuzzerTestOneInput(input.data(), input.size());
    ++executions;
    if (places > before) corpus.push_back(input);
  }
  std::printf("%zu executions, %zu places in the code reached, %zu inputs kept; nothing found\n", executions, places,
              corpus.size());
  return 0;
}
