// Scores an image with a model that `anomaly export` wrote:
//   score part.onnx frame.pgm [threads]
// prints score, p-value, decision, and where the map is highest. Everything that is needed to use the model is read from
// the file itself: what a frame must be, what the decision codes mean, and the thresholds.
// Exit status: 0 scored (whatever the decision), 2 not scored, the message says why.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "pnm.hpp"

namespace {

// Returns an entry of the model's metadata; a file without it was not written by `anomaly export`.
std::string metadata(const Ort::Session& session, const char* key) {
    Ort::AllocatorWithDefaultOptions allocator;
    const auto value = session.GetModelMetadata().LookupCustomMetadataMapAllocated(key, allocator);
    if (!value) throw std::runtime_error(std::string("the model has no entry ") + key + ": make it with `anomaly export`");
    return value.get();
}

// Returns the name of a decision from "int32 (N): 0 OK, 1 REVIEW, 2 NG".
std::string decision_name(const std::string& described, int32_t code) {
    std::istringstream entries(described.substr(described.find(": ") + 2));
    int32_t number = 0;
    std::string name;
    while (entries >> number >> name) {
        if (number == code) return name.back() == ',' ? name.substr(0, name.size() - 1) : name;
    }
    throw std::runtime_error("decision code " + std::to_string(code) + " is not in the model's list: " + described);
}

// What the model takes.
struct Frame {
    int64_t batch, channels, height, width;
    bool interleaved;
    double low, high;
    ONNXTensorElementDataType type;
    std::vector<int64_t> shape;
};

Frame frame_of(const Ort::Session& session) {
    const auto info = session.GetInputTypeInfo(0);
    const auto tensor = info.GetTensorTypeAndShapeInfo();
    Frame frame{};
    frame.shape = tensor.GetShape();
    frame.type = tensor.GetElementType();
    frame.interleaved = metadata(session, "input.layout") == "NHWC";
    if (frame.shape[0] < 1) frame.shape[0] = 1;  // any number of frames: one
    frame.batch = frame.shape[0];
    frame.channels = frame.shape[frame.interleaved ? 3 : 1];
    frame.height = frame.shape[frame.interleaved ? 1 : 2];
    frame.width = frame.shape[frame.interleaved ? 2 : 3];
    std::istringstream(metadata(session, "input.range")) >> frame.low >> frame.high;
    return frame;
}

// Returns the image in the type and layout of the model, once for every frame of a run.
template <typename Value>
std::vector<Value> filled(const Image& image, const Frame& frame) {
    std::vector<Value> values(static_cast<size_t>(frame.batch) * image.values.size());
    const int64_t pixels = frame.height * frame.width;
    for (int64_t i = 0; i < static_cast<int64_t>(image.values.size()); ++i) {
        const int64_t pixel = i / frame.channels, channel = i % frame.channels;
        values[static_cast<size_t>(frame.interleaved ? i : channel * pixels + pixel)] = static_cast<Value>(image.values[i]);
    }
    for (int64_t n = 1; n < frame.batch; ++n) std::copy_n(values.begin(), image.values.size(), values.begin() + n * image.values.size());
    return values;
}

// Refuses an image that the model does not take; nothing is resized, converted or clipped.
void check(const Image& image, const Frame& frame, const std::string& expected) {
    const bool wide = frame.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16;
    const bool fits = image.height == frame.height && image.width == frame.width && image.channels == frame.channels;
    if (!fits || image.wide != wide) {
        throw std::runtime_error("the image is " + std::string(image.wide ? "uint16 " : "uint8 ") + std::to_string(image.height) +
                                 " x " + std::to_string(image.width) + " x " + std::to_string(image.channels) +
                                 "; the model takes " + expected);
    }
    const auto [least, greatest] = std::minmax_element(image.values.begin(), image.values.end());
    if (*least < frame.low || *greatest > frame.high) throw std::runtime_error("values out of range; the model takes " + expected);
}

template <typename Value>
std::vector<Ort::Value> run(Ort::Session& session, const Image& image, const Frame& frame) {
    auto values = filled<Value>(image, frame);
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto input = Ort::Value::CreateTensor<Value>(memory, values.data(), values.size(), frame.shape.data(), frame.shape.size());
    const char* const inputs[] = {"frame"};
    const char* const outputs[] = {"score", "map", "p_value", "decision"};
    return session.Run(Ort::RunOptions{nullptr}, inputs, &input, 1, outputs, 4);
}

void score(const std::string& model, const std::string& path, int threads) {
    Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "score");
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    Ort::Session session(environment, std::filesystem::path(model).c_str(), options);
    const Frame frame = frame_of(session);
    const Image image = read_pnm(path);
    if (frame.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 && frame.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16) {
        throw std::runtime_error("this program scores uint8 and uint16 frames; the model takes " + metadata(session, "input.frame"));
    }
    check(image, frame, metadata(session, "input.frame"));
    auto results = frame.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 ? run<uint8_t>(session, image, frame)
                                                                     : run<uint16_t>(session, image, frame);
    const auto shape = results[1].GetTensorTypeAndShapeInfo().GetShape();
    const float* map = results[1].GetTensorData<float>();
    const auto peak = std::max_element(map, map + shape[1] * shape[2]) - map;
    std::printf("score     %.9g\n", results[0].GetTensorData<float>()[0]);
    std::printf("p_value   %.9g\n", results[2].GetTensorData<float>()[0]);
    std::printf("decision  %s\n", decision_name(metadata(session, "output.decision"), results[3].GetTensorData<int32_t>()[0]).c_str());
    std::printf("threshold REVIEW above %s, NG above %s\n", metadata(session, "threshold.review").c_str(), metadata(session, "threshold.ng").c_str());
    std::printf("peak      row %lld, column %lld of the map\n", static_cast<long long>(peak / shape[2]), static_cast<long long>(peak % shape[2]));
}

}  // namespace

int main(int count, char** words) {
    if (count < 3 || count > 4) {
        std::cerr << "usage: score MODEL.onnx IMAGE.pgm [THREADS]\n";
        return 2;
    }
    try {
        score(words[1], words[2], count == 4 ? std::max(1, std::atoi(words[3])) : 1);
    } catch (const std::exception& error) {
        std::cerr << "Error: " << error.what() << "\n";
        return 2;
    }
    return 0;
}
