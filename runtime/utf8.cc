#include "runtime/utf8.h"

#include "kernels/check.h"

namespace cohort {
namespace {

// What a lead byte asks for. The second byte's range excludes overlong forms (E0, F0), surrogates
// (ED) and values above U+10FFFF (F4); later bytes are always 80..BF.
struct Lead {
  size_t length;  // 0: not a lead byte
  unsigned char second_low;
  unsigned char second_high;
};

Lead LeadOf(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Unit FirstUtf8Unit(StringView bytes) {
  CHECK(!bytes.empty());
  const auto byte = [&bytes](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const Lead lead = LeadOf(byte(0));
  if (lead.length == 0) return {Utf8Unit::Kind::kInvalid, 1, 0};
  if (lead.length == 1) return {Utf8Unit::Kind::kCharacter, 1, byte(0)};
  uint32_t code_point = byte(0) & (0x7Fu >> lead.length);
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == bytes.size()) return {Utf8Unit::Kind::kIncomplete, i, 0};
    const unsigned char low = i == 1 ? lead.second_low : 0x80;
    const unsigned char high = i == 1 ? lead.second_high : 0xBF;
    if (byte(i) < low || byte(i) > high) return {Utf8Unit::Kind::kInvalid, i, 0};
    code_point = code_point << 6 | (byte(i) & 0x3Fu);
  }
  return {Utf8Unit::Kind::kCharacter, lead.length, code_point};
}

size_t Utf8Prefix(StringView bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    if (static_cast<unsigned char>(bytes[at]) < 0x80) {
      ++at;
      continue;
    }
    const Utf8Unit unit = FirstUtf8Unit(bytes.substr(at));
    if (unit.kind != Utf8Unit::Kind::kCharacter) break;
    at += unit.length;
  }
  return at;
}

void AppendUtf8(uint32_t code_point, std::string& text) {
  CHECK(code_point <= 0x10FFFF && (code_point < 0xD800 || code_point > 0xDFFF)) << code_point;
  const auto continuation = [code_point](int shift) {
    return static_cast<char>(0x80 | (code_point >> shift & 0x3F));
  };
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    text += {static_cast<char>(0xC0 | code_point >> 6), continuation(0)};
  } else if (code_point < 0x10000) {
    text += {static_cast<char>(0xE0 | code_point >> 12), continuation(6), continuation(0)};
  } else {
    text += {static_cast<char>(0xF0 | code_point >> 18), continuation(12), continuation(6),
             continuation(0)};
  }
}

size_t AppendUtf8Lossy(StringView bytes, std::string& text) {
  while (!bytes.empty()) {
    const size_t valid = Utf8Prefix(bytes);
    text.append(bytes.data(), valid);
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    const Utf8Unit unit = FirstUtf8Unit(bytes);
    if (unit.kind == Utf8Unit::Kind::kIncomplete) return bytes.size();
    text += kReplacementCharacter;
    bytes.remove_prefix(unit.length);
  }
  return 0;
}

}  // namespace cohort
