// Wire format, all little-endian:
//   plan:   magic u32, version u32, epoch u64, step u64, admits, rows, releases (each a u32 count
//           and the elements)
//   admit:  slot u32, sequence_index u32, temperature f32, top_p f32, top_k i32, seed u64
//   rows:   slot u32, first_position u64, flags u8, tokens (u32 count; i32 each when all are
//           literals, else i32 id and u64 step each), appended_blocks (u32 count, i32 each), one
//           i32 per token when there are score targets
//   result: magic u32, version u32, epoch u64, step u64, digest u64, sequences
//   sequence: slot u32, tokens (u32 count, i32 each), logprobs (u32 count, f32 each)
// Every value has exactly one encoding: what decodes encodes to the same bytes again.
#include "runtime/step_plan.h"

#include <algorithm>
#include <bit>

#include "kernels/check.h"
#include "runtime/byte_codec.h"

namespace cohort {
namespace {

constexpr uint32_t kPlanMagic = 0x4e4c5043;    // "CPLN"
constexpr uint32_t kResultMagic = 0x53455243;  // "CRES"

constexpr uint8_t kSampleFlag = 1;
constexpr uint8_t kLiteralsFlag = 2;  // every token is a literal
constexpr uint8_t kTargetsFlag = 4;
constexpr uint8_t kKnownFlags = kSampleFlag | kLiteralsFlag | kTargetsFlag;

// Bytes of the shortest encodings, for bounds.
constexpr size_t kAdmitBytes = 28;
constexpr size_t kRowsBytes = 25;  // with one literal token and no blocks
constexpr size_t kSequenceBytes = 12;

bool AllLiteral(const std::vector<TokenSource>& tokens) {
  return std::all_of(tokens.begin(), tokens.end(),
                     [](const TokenSource& token) { return token.is_literal(); });
}

void WriteHeader(uint32_t magic, uint64_t epoch, uint64_t step, ByteWriter& writer) {
  writer.U32(magic);
  writer.U32(kStepPlanVersion);
  writer.U64(epoch);
  writer.U64(step);
}

void ReadHeader(uint32_t magic, ByteReader& reader, uint64_t& epoch, uint64_t& step) {
  if (const uint32_t found = reader.U32(); reader.ok() && found != magic) {
    reader.Fail(absl::StrCat("magic 0x", absl::Hex(found), ", expected 0x", absl::Hex(magic)));
  }
  if (const uint32_t version = reader.U32(); reader.ok() && version != kStepPlanVersion) {
    reader.Fail(absl::StrCat("version ", version, ", this build speaks ", kStepPlanVersion));
  }
  epoch = reader.U64();
  step = reader.U64();
}

void Write(const AdmitSequence& admit, ByteWriter& writer) {
  writer.U32(admit.slot);
  writer.U32(admit.sequence_index);
  writer.F32(admit.sampling.temperature);
  writer.F32(admit.sampling.top_p);
  writer.I32(admit.sampling.top_k);
  writer.U64(admit.sampling.seed);
}

AdmitSequence ReadAdmit(ByteReader& reader) {
  AdmitSequence admit;
  admit.slot = reader.U32();
  admit.sequence_index = reader.U32();
  admit.sampling.temperature = reader.F32();
  admit.sampling.top_p = reader.F32();
  admit.sampling.top_k = reader.I32();
  admit.sampling.seed = reader.U64();
  return admit;
}

void Write(const SequenceRows& rows, ByteWriter& writer) {
  CHECK(!rows.tokens.empty()) << "rows of slot " << rows.slot;
  CHECK(rows.score_targets.empty() || rows.score_targets.size() == rows.tokens.size())
      << rows.score_targets.size() << " targets for " << rows.tokens.size() << " rows";
  const bool literals = AllLiteral(rows.tokens);
  writer.U32(rows.slot);
  writer.U64(rows.first_position);
  writer.U8(static_cast<uint8_t>((rows.sample ? kSampleFlag : 0) | (literals ? kLiteralsFlag : 0) |
                                 (rows.score_targets.empty() ? 0 : kTargetsFlag)));
  writer.Count(rows.tokens.size());
  for (const TokenSource& token : rows.tokens) {
    writer.I32(token.id);
    if (!literals) {
      writer.U64(token.sampled_in_step);
    }
  }
  writer.Count(rows.appended_blocks.size());
  for (const int32_t block : rows.appended_blocks) {
    writer.I32(block);
  }
  for (const int32_t target : rows.score_targets) {
    writer.I32(target);
  }
}

std::vector<TokenSource> ReadTokens(bool literals, ByteReader& reader) {
  const size_t count = reader.Count(literals ? 4 : 12);
  if (reader.ok() && count == 0) {
    reader.Fail("rows without a token");
  }
  std::vector<TokenSource> tokens(count);
  for (TokenSource& token : tokens) {
    token.id = reader.I32();
    if (!literals) {
      token.sampled_in_step = reader.U64();
    }
  }
  if (reader.ok() && literals != AllLiteral(tokens)) {
    reader.Fail("literal tokens in the long form");
  }
  return tokens;
}

std::vector<int32_t> ReadI32s(size_t count, ByteReader& reader) {
  std::vector<int32_t> values(count);
  for (int32_t& value : values) {
    value = reader.I32();
  }
  return values;
}

SequenceRows ReadRows(ByteReader& reader) {
  SequenceRows rows;
  rows.slot = reader.U32();
  rows.first_position = reader.U64();
  const uint8_t flags = reader.U8();
  if ((flags & ~kKnownFlags) != 0) {
    reader.Fail(absl::StrCat("unknown flags 0x", absl::Hex(flags)));
  }
  rows.sample = (flags & kSampleFlag) != 0;
  rows.tokens = ReadTokens((flags & kLiteralsFlag) != 0, reader);
  rows.appended_blocks = ReadI32s(reader.Count(4), reader);
  if ((flags & kTargetsFlag) != 0) {
    if (rows.tokens.size() > reader.remaining() / 4) {
      reader.Fail(absl::StrCat("truncated: ", rows.tokens.size(), " score targets follow"));
    }
    rows.score_targets = ReadI32s(reader.ok() ? rows.tokens.size() : 0, reader);
  }
  return rows;
}

SequenceResult ReadSequence(ByteReader& reader) {
  SequenceResult sequence;
  sequence.slot = reader.U32();
  sequence.tokens = ReadI32s(reader.Count(4), reader);
  sequence.logprobs.resize(reader.Count(4));
  for (float& logprob : sequence.logprobs) {
    logprob = reader.F32();
  }
  return sequence;
}

// Vectors of structs grow as their elements arrive: a struct is larger in memory than on the wire,
// and a message should not cost a multiple of its size before it proved to be whole.
template <class T, class Read>
std::vector<T> ReadAll(size_t element_bytes, ByteReader& reader, Read read) {
  std::vector<T> elements;
  for (size_t left = reader.Count(element_bytes); left > 0 && reader.ok(); --left) {
    elements.push_back(read(reader));
  }
  return elements;
}

}  // namespace

bool AdmitSequence::operator==(const AdmitSequence& other) const {
  return slot == other.slot && sequence_index == other.sequence_index &&
         sampling.temperature == other.sampling.temperature &&
         sampling.top_p == other.sampling.top_p && sampling.top_k == other.sampling.top_k &&
         sampling.seed == other.sampling.seed;
}

int64_t StepPlan::tokens() const {
  int64_t count = 0;
  for (const SequenceRows& sequence : rows) {
    count += static_cast<int64_t>(sequence.tokens.size());
  }
  return count;
}

bool StepPlan::operator==(const StepPlan&) const = default;

std::string Encode(const StepPlan& plan) {
  ByteWriter writer;
  writer.Reserve(36 + plan.admits.size() * kAdmitBytes + plan.rows.size() * 48 +
                 static_cast<size_t>(plan.tokens()) * 4 + plan.releases.size() * 4);
  WriteHeader(kPlanMagic, plan.epoch, plan.step, writer);
  writer.Count(plan.admits.size());
  for (const AdmitSequence& admit : plan.admits) {
    Write(admit, writer);
  }
  writer.Count(plan.rows.size());
  for (const SequenceRows& rows : plan.rows) {
    Write(rows, writer);
  }
  writer.Count(plan.releases.size());
  for (const uint32_t slot : plan.releases) {
    writer.U32(slot);
  }
  return std::move(writer).Take();
}

std::string Encode(const StepResult& result) {
  ByteWriter writer;
  writer.Reserve(36 + result.sequences.size() * (kSequenceBytes + 4));
  WriteHeader(kResultMagic, result.epoch, result.step, writer);
  writer.U64(result.digest);
  writer.Count(result.sequences.size());
  for (const SequenceResult& sequence : result.sequences) {
    writer.U32(sequence.slot);
    writer.Count(sequence.tokens.size());
    for (const int32_t token : sequence.tokens) {
      writer.I32(token);
    }
    writer.Count(sequence.logprobs.size());
    for (const float logprob : sequence.logprobs) {
      writer.F32(logprob);
    }
  }
  return std::move(writer).Take();
}

absl::StatusOr<StepPlan> DecodeStepPlan(StringView bytes) {
  ByteReader reader(bytes);
  StepPlan plan;
  ReadHeader(kPlanMagic, reader, plan.epoch, plan.step);
  plan.admits = ReadAll<AdmitSequence>(kAdmitBytes, reader, ReadAdmit);
  plan.rows = ReadAll<SequenceRows>(kRowsBytes, reader, ReadRows);
  plan.releases = ReadAll<uint32_t>(4, reader, [](ByteReader& r) { return r.U32(); });
  RETURN_IF_ERROR(reader.Finish("step plan"));
  return plan;
}

absl::StatusOr<StepResult> DecodeStepResult(StringView bytes) {
  ByteReader reader(bytes);
  StepResult result;
  ReadHeader(kResultMagic, reader, result.epoch, result.step);
  result.digest = reader.U64();
  result.sequences = ReadAll<SequenceResult>(kSequenceBytes, reader, ReadSequence);
  RETURN_IF_ERROR(reader.Finish("step result"));
  return result;
}

}  // namespace cohort
