// Unicode normalisation form C (utf8proc's tables: Unicode 14 in version 2.8).
#ifndef COHORT_RUNTIME_TOKENIZER_NFC_H_
#define COHORT_RUNTIME_TOKENIZER_NFC_H_

#include <string>

#include "kernels/status.h"

namespace cohort {

// `text` must be UTF-8. Linear in its length but for the sort of long runs of combining marks.
std::string NormalizeNfc(StringView text);

// The White_Space property.
bool IsWhiteSpace(uint32_t code_point);
// A letter, mark, number-like letter, decimal digit, connector or joiner: what \w means in
// Unicode's regular expressions (UTS 18, annex C).
bool IsWordCharacter(uint32_t code_point);

}  // namespace cohort

#endif  // COHORT_RUNTIME_TOKENIZER_NFC_H_
