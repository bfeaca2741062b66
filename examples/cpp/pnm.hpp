// Binary PGM (P5) and PPM (P6) images of 8 or 16 bits, as interleaved values.
#pragma once

#include <cctype>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
    int64_t height = 0, width = 0, channels = 0;
    bool wide = false;             // 16 bits a value; otherwise 8
    std::vector<uint16_t> values;  // row by row, the channels of a pixel side by side
};

// Returns the next number of the header; comments start with '#'.
inline int64_t next_number(std::istream& file, const std::string& path) {
    while (std::isspace(file.peek()) || file.peek() == '#') {
        if (file.get() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    }
    int64_t number = 0;
    if (!(file >> number) || number <= 0 || number > 65535) throw std::runtime_error(path + ": damaged PGM or PPM header");
    return number;
}

inline Image read_pnm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be opened");
    char kind[2] = {0, 0};
    file.read(kind, 2);
    if (kind[0] != 'P' || (kind[1] != '5' && kind[1] != '6')) throw std::runtime_error(path + ": no binary PGM or PPM image");
    Image image;
    image.channels = kind[1] == '5' ? 1 : 3;
    image.width = next_number(file, path);
    image.height = next_number(file, path);
    image.wide = next_number(file, path) > 255;
    file.get();  // the one white space before the pixels
    const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const size_t count = static_cast<size_t>(image.height * image.width * image.channels);
    if (bytes.size() != count * (image.wide ? 2 : 1)) throw std::runtime_error(path + ": too few or too many pixels");
    image.values.resize(count);
    for (size_t i = 0; i < count; ++i) {
        const auto byte = [&](size_t at) { return static_cast<uint16_t>(static_cast<unsigned char>(bytes[at])); };
        image.values[i] = image.wide ? static_cast<uint16_t>(byte(2 * i) << 8 | byte(2 * i + 1)) : byte(i);
    }
    return image;
}
