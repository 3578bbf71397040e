// UTF-8: decoding one character at a time, checking, and replacing what is invalid.
#ifndef COHORT_RUNTIME_UTF8_H_
#define COHORT_RUNTIME_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/status.h"

namespace cohort {

// What the first bytes of a text are.
struct Utf8Unit {
  enum class Kind {
    kCharacter,   // a whole character of `length` bytes
    kInvalid,     // `length` bytes, a maximal subpart, that no further byte can complete
    kIncomplete,  // all the bytes given: the beginning of a character, more may follow
  };
  Kind kind = Kind::kInvalid;
  size_t length = 0;        // bytes
  uint32_t code_point = 0;  // of a character
};

// The first unit of `bytes`, which must not be empty. Surrogates, overlong forms and values above
// U+10FFFF are invalid at the byte that makes them so (Unicode 15, table 3-7).
Utf8Unit FirstUtf8Unit(StringView bytes);

// Offset of the first byte that does not begin a whole character; bytes.size() when all is well.
size_t Utf8Prefix(StringView bytes);
inline bool IsUtf8(StringView bytes) { return Utf8Prefix(bytes) == bytes.size(); }

// Appends the character `code_point` (a Unicode scalar value) to `text`.
void AppendUtf8(uint32_t code_point, std::string& text);

// Appends `bytes` with U+FFFD for every maximal invalid subpart, and returns how many trailing
// bytes (0 to 3) begin a character that is not complete; those are not appended.
size_t AppendUtf8Lossy(StringView bytes, std::string& text);

// U+FFFD in UTF-8.
inline constexpr char kReplacementCharacter[] = "\xEF\xBF\xBD";

}  // namespace cohort

#endif  // COHORT_RUNTIME_UTF8_H_
