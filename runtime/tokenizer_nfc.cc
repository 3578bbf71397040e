#include "runtime/tokenizer_nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "kernels/check.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

constexpr auto kCompose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

// Nothing below U+0300 and no CJK ideograph changes under NFC or combines with what precedes it.
bool IsAlwaysNormal(uint32_t code_point) {
  return code_point < 0x300 || (code_point >= 0x4E00 && code_point <= 0x9FFF);
}

bool IsAlwaysNormal(StringView text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Unit unit = FirstUtf8Unit(text.substr(at));
    if (!IsAlwaysNormal(unit.code_point)) return false;
    at += unit.length;
  }
  return true;
}

int CombiningClass(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

std::vector<utf8proc_int32_t> Decompose(StringView text) {
  constexpr int kLongest = 32;  // a canonical decomposition has at most 4 characters
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(text.size());
  int boundary_class = 0;  // unused without UTF8PROC_CHARBOUND
  for (size_t at = 0; at < text.size();) {
    const Utf8Unit unit = FirstUtf8Unit(text.substr(at));
    utf8proc_int32_t parts[kLongest];
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(unit.code_point), parts, kLongest, kCompose, &boundary_class);
    CHECK(count >= 0 && count <= kLongest) << unit.code_point;
    characters.insert(characters.end(), parts, parts + count);
    at += unit.length;
  }
  return characters;
}

// utf8proc_map would do all of this, but it orders marks by swapping neighbours: quadratic in the
// length of a run of marks, which a request controls.
void OrderMarks(std::vector<utf8proc_int32_t>& characters) {
  const auto is_starter = [](utf8proc_int32_t c) { return CombiningClass(c) == 0; };
  auto run = characters.begin();
  while (run != characters.end()) {
    run = std::find_if_not(run, characters.end(), is_starter);
    const auto end = std::find_if(run, characters.end(), is_starter);
    std::stable_sort(run, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return CombiningClass(a) < CombiningClass(b);
    });
    run = end;
  }
}

}  // namespace

std::string NormalizeNfc(StringView text) {
  if (IsAlwaysNormal(text)) return std::string(text);
  std::vector<utf8proc_int32_t> characters = Decompose(text);
  OrderMarks(characters);
  const utf8proc_ssize_t count = utf8proc_normalize_utf32(
      characters.data(), static_cast<utf8proc_ssize_t>(characters.size()), kCompose);
  CHECK_GE(count, 0) << utf8proc_errmsg(count);
  std::string normalized;
  normalized.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    AppendUtf8(static_cast<uint32_t>(characters[static_cast<size_t>(i)]), normalized);
  }
  return normalized;
}

bool IsWhiteSpace(uint32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool IsWordCharacter(uint32_t c) {
  // Other_Alphabetic symbols (circled and squared letters) and the two joiners have other
  // categories.
  if (c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
      (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
      (c >= 0x1F170 && c <= 0x1F189)) {
    return true;
  }
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

}  // namespace cohort
