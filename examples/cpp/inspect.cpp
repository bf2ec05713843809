// Judge one image file: send it as it is, print the verdict that the server gives.
//
//     ./inspect line1:8001 screw part.png
//
// The server decodes the file (the category's encoded form), so nothing here knows
// about pixels. README.md beside this file says how to build it.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>
#include <thread>

#include "grpc_service.grpc.pb.h"

namespace {

using Clock = std::chrono::system_clock;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

// A BYTES tensor holds the length of each element, 4 bytes little-endian, before it.
std::string Packed(const std::string& element) {
  const auto length = static_cast<uint32_t>(element.size());
  std::string packed(4, '\0');
  for (int i = 0; i < 4; ++i) packed[i] = static_cast<char>(length >> (8 * i));
  return packed + element;
}

const std::string& Output(const inference::ModelInferResponse& answer, const std::string& name) {
  for (int i = 0; i < answer.outputs_size(); ++i) {
    if (answer.outputs(i).name() == name) return answer.raw_output_contents(i);
  }
  throw std::runtime_error("the server sent no " + name + "; is its release of contract 2?");
}

float Number(const std::string& bytes, int index = 0) {
  float value;
  std::memcpy(&value, bytes.data() + 4 * index, sizeof value);
  return value;
}

// Ask until the deadline: an inspection changes nothing, so asking again is safe.
inference::ModelInferResponse Ask(inference::GRPCInferenceService::Stub& stub,
                                  const inference::ModelInferRequest& request,
                                  Clock::time_point deadline) {
  std::mt19937 random{std::random_device{}()};
  for (int longest_ms = 100;; longest_ms = std::min(2 * longest_ms, 2000)) {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    inference::ModelInferResponse answer;
    const grpc::Status status = stub.ModelInfer(&context, request, &answer);
    if (status.ok()) return answer;
    const std::chrono::milliseconds pause(std::uniform_int_distribution<>(0, longest_ms)(random));
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE || Clock::now() + pause >= deadline) {
      throw std::runtime_error(status.error_message());
    }
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) {
    std::cerr << "usage: inspect HOST:PORT CATEGORY FILE\n";
    return 2;
  }
  grpc::ChannelArguments options;
  options.SetMaxReceiveMessageSize(-1);
  auto stub = inference::GRPCInferenceService::NewStub(
      grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), options));

  inference::ModelInferRequest request;
  request.set_model_name(std::string(argv[2]) + "__encoded");
  auto* input = request.add_inputs();
  input->set_name("IMAGE_BYTES");
  input->set_datatype("BYTES");
  input->add_shape(1);
  input->add_shape(1);
  request.add_raw_input_contents(Packed(ReadFile(argv[3])));
  for (const char* name : {"SCORE", "VERDICT", "THRESHOLDS", "RELEASE"}) {
    request.add_outputs()->set_name(name);
  }

  const auto answer = Ask(*stub, request, Clock::now() + std::chrono::seconds(10));
  const std::string& limits = Output(answer, "THRESHOLDS");
  std::cout << Output(answer, "VERDICT").substr(4) << " " << Number(Output(answer, "SCORE"))
            << " (accept " << Number(limits, 0) << ", reject " << Number(limits, 1)
            << ", release " << Output(answer, "RELEASE").substr(4, 12) << ")\n";
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
