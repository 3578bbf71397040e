// Wire format, all little-endian:
//   plan:   magic u32, version u32, epoch u64, step u64, admits, rows, releases (each a u32 count
//           and the elements)
//   list of x: u32 count and the elements
//   admit:  slot u32, sequence_index u32, first_position u64, prompt_tokens u64, history (list of
//           i32), min_tokens u64, held_back_ids (list of i32), sampling
//   sampling: temperature f32, top_p f32, top_k i32, min_p f32, seed u64, repetition, presence and
//           frequency penalty f32 each, logit_bias (list of i32 id and f32), allowed_token_ids
//           (list of i32), bad_words (list of lists of i32), logprobs i32
//   rows:   slot u32, first_position u64, flags u8, tokens (u32 count; i32 each when all are
//           literals, else i32 id and u64 step each), appended_blocks (list of i32), where there
//           are score targets: score_top u32 and one i32 per token
//   result: magic u32, version u32, epoch u64, step u64, digest u64, sequences
//   sequence: slot u32, tokens (list of i32), token_logprobs (list of f32), token_top (list of i32
//           id and f32), logprobs (list of f32), score_top (list of i32 id and f32)
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
constexpr size_t kAdmitBytes = 93;
constexpr size_t kRowsBytes = 25;  // with one literal token and no blocks
constexpr size_t kSequenceBytes = 24;

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

// Vectors of structs grow as their elements arrive: a struct is larger in memory than on the wire,
// and a message should not cost a multiple of its size before it proved to be whole.
template <class T, class Read>
void ReadInto(std::vector<T>& elements, size_t element_bytes, ByteReader& reader, Read read) {
  const size_t count = reader.Count(element_bytes);
  for (size_t i = 0; i < count && reader.ok(); ++i) {
    if (i == elements.size()) {
      elements.emplace_back();
    }
    read(reader, elements[i]);
  }
  elements.resize(std::min(count, elements.size()));
}

template <class Read>
auto ReadList(size_t element_bytes, ByteReader& reader, Read read) {
  std::vector<decltype(read(reader))> elements;
  ReadInto(elements, element_bytes, reader,
           [&](ByteReader& r, auto& element) { element = read(r); });
  return elements;
}

void WriteList(const std::vector<int32_t>& values, ByteWriter& writer) {
  writer.Count(values.size());
  for (const int32_t value : values) {
    writer.I32(value);
  }
}

void WriteList(const std::vector<float>& values, ByteWriter& writer) {
  writer.Count(values.size());
  for (const float value : values) {
    writer.F32(value);
  }
}

void WriteList(const std::vector<TokenLogprob>& values, ByteWriter& writer) {
  writer.Count(values.size());
  for (const TokenLogprob& value : values) {
    writer.I32(value.id);
    writer.F32(value.logprob);
  }
}

void ReadI32s(size_t count, ByteReader& reader, std::vector<int32_t>& values) {
  values.resize(count);
  for (int32_t& value : values) {
    value = reader.I32();
  }
}

std::vector<int32_t> ReadI32List(ByteReader& reader) {
  std::vector<int32_t> values;
  ReadI32s(reader.Count(4), reader, values);
  return values;
}

std::vector<float> ReadF32List(ByteReader& reader) {
  std::vector<float> values(reader.Count(4));
  for (float& value : values) {
    value = reader.F32();
  }
  return values;
}

std::vector<TokenLogprob> ReadLogprobList(ByteReader& reader) {
  std::vector<TokenLogprob> values(reader.Count(8));
  for (TokenLogprob& value : values) {
    value.id = reader.I32();
    value.logprob = reader.F32();
  }
  return values;
}

void Write(const SamplingParameters& sampling, ByteWriter& writer) {
  writer.F32(sampling.temperature);
  writer.F32(sampling.top_p);
  writer.I32(sampling.top_k);
  writer.F32(sampling.min_p);
  writer.U64(sampling.seed);
  writer.F32(sampling.repetition_penalty);
  writer.F32(sampling.presence_penalty);
  writer.F32(sampling.frequency_penalty);
  writer.Count(sampling.logit_bias.size());
  for (const TokenBias& bias : sampling.logit_bias) {
    writer.I32(bias.id);
    writer.F32(bias.bias);
  }
  WriteList(sampling.allowed_token_ids, writer);
  writer.Count(sampling.bad_words.size());
  for (const std::vector<int32_t>& word : sampling.bad_words) {
    WriteList(word, writer);
  }
  writer.I32(sampling.logprobs);
}

SamplingParameters ReadSampling(ByteReader& reader) {
  SamplingParameters sampling;
  sampling.temperature = reader.F32();
  sampling.top_p = reader.F32();
  sampling.top_k = reader.I32();
  sampling.min_p = reader.F32();
  sampling.seed = reader.U64();
  sampling.repetition_penalty = reader.F32();
  sampling.presence_penalty = reader.F32();
  sampling.frequency_penalty = reader.F32();
  sampling.logit_bias = ReadList(8, reader, [](ByteReader& r) {
    TokenBias bias;
    bias.id = r.I32();
    bias.bias = r.F32();
    return bias;
  });
  sampling.allowed_token_ids = ReadI32List(reader);
  sampling.bad_words = ReadList(4, reader, ReadI32List);
  sampling.logprobs = reader.I32();
  return sampling;
}

void Write(const AdmitSequence& admit, ByteWriter& writer) {
  writer.U32(admit.slot);
  writer.U32(admit.sequence_index);
  writer.U64(admit.first_position);
  writer.U64(admit.prompt_tokens);
  writer.U8(admit.plain_rope ? 1 : 0);
  WriteList(admit.history, writer);
  writer.U64(admit.min_tokens);
  WriteList(admit.held_back_ids, writer);
  Write(admit.sampling, writer);
}

AdmitSequence ReadAdmit(ByteReader& reader) {
  AdmitSequence admit;
  admit.slot = reader.U32();
  admit.sequence_index = reader.U32();
  admit.first_position = reader.U64();
  admit.prompt_tokens = reader.U64();
  const uint8_t plain_rope = reader.U8();
  if (plain_rope > 1) {
    reader.Fail(absl::StrCat("plain_rope ", plain_rope, " is neither 0 nor 1"));
  }
  admit.plain_rope = plain_rope == 1;
  admit.history = ReadI32List(reader);
  admit.min_tokens = reader.U64();
  admit.held_back_ids = ReadI32List(reader);
  admit.sampling = ReadSampling(reader);
  return admit;
}

void Write(const SequenceRows& rows, ByteWriter& writer) {
  CHECK(!rows.tokens.empty()) << "rows of slot " << rows.slot;
  CHECK(rows.score_targets.empty() || rows.score_targets.size() == rows.tokens.size())
      << rows.score_targets.size() << " targets for " << rows.tokens.size() << " rows";
  CHECK(rows.score_top == 0 || !rows.score_targets.empty()) << "slot " << rows.slot;
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
  WriteList(rows.appended_blocks, writer);
  if (!rows.score_targets.empty()) {
    writer.U32(rows.score_top);
  }
  for (const int32_t target : rows.score_targets) {
    writer.I32(target);
  }
}

void ReadTokens(bool literals, ByteReader& reader, std::vector<TokenSource>& tokens) {
  const size_t count = reader.Count(literals ? 4 : 12);
  if (reader.ok() && count == 0) {
    reader.Fail("rows without a token");
  }
  tokens.resize(count);
  for (TokenSource& token : tokens) {
    token.id = reader.I32();
    token.sampled_in_step = literals ? TokenSource::kLiteral : reader.U64();
  }
  if (reader.ok() && literals != AllLiteral(tokens)) {
    reader.Fail("literal tokens in the long form");
  }
}

void ReadRows(ByteReader& reader, SequenceRows& rows) {
  rows.slot = reader.U32();
  rows.first_position = reader.U64();
  const uint8_t flags = reader.U8();
  if ((flags & ~kKnownFlags) != 0) {
    reader.Fail(absl::StrCat("unknown flags 0x", absl::Hex(flags)));
  }
  rows.sample = (flags & kSampleFlag) != 0;
  ReadTokens((flags & kLiteralsFlag) != 0, reader, rows.tokens);
  ReadI32s(reader.Count(4), reader, rows.appended_blocks);
  rows.score_top = 0;
  rows.score_targets.clear();
  if ((flags & kTargetsFlag) != 0) {
    rows.score_top = reader.U32();
    if (rows.tokens.size() > reader.remaining() / 4) {
      reader.Fail(absl::StrCat("truncated: ", rows.tokens.size(), " score targets follow"));
    }
    ReadI32s(reader.ok() ? rows.tokens.size() : 0, reader, rows.score_targets);
  }
}

SequenceResult ReadSequence(ByteReader& reader) {
  SequenceResult sequence;
  sequence.slot = reader.U32();
  sequence.tokens = ReadI32List(reader);
  sequence.token_logprobs = ReadF32List(reader);
  sequence.token_top = ReadLogprobList(reader);
  sequence.logprobs = ReadF32List(reader);
  sequence.score_top = ReadLogprobList(reader);
  return sequence;
}

}  // namespace

int64_t StepPlan::tokens() const {
  int64_t count = 0;
  for (const SequenceRows& sequence : rows) {
    count += static_cast<int64_t>(sequence.tokens.size());
  }
  return count;
}

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
    WriteList(sequence.tokens, writer);
    WriteList(sequence.token_logprobs, writer);
    WriteList(sequence.token_top, writer);
    WriteList(sequence.logprobs, writer);
    WriteList(sequence.score_top, writer);
  }
  WriteList(result.expert_hits, writer);
  return std::move(writer).Take();
}

absl::Status DecodeStepPlan(StringView bytes, StepPlan& plan) {
  ByteReader reader(bytes);
  ReadHeader(kPlanMagic, reader, plan.epoch, plan.step);
  plan.admits = ReadList(kAdmitBytes, reader, ReadAdmit);
  ReadInto(plan.rows, kRowsBytes, reader, ReadRows);
  plan.releases = ReadList(4, reader, [](ByteReader& r) { return r.U32(); });
  return reader.Finish("step plan");
}

absl::StatusOr<StepPlan> DecodeStepPlan(StringView bytes) {
  StepPlan plan;
  RETURN_IF_ERROR(DecodeStepPlan(bytes, plan));
  return plan;
}

absl::StatusOr<StepResult> DecodeStepResult(StringView bytes) {
  ByteReader reader(bytes);
  StepResult result;
  ReadHeader(kResultMagic, reader, result.epoch, result.step);
  result.digest = reader.U64();
  result.sequences = ReadList(kSequenceBytes, reader, ReadSequence);
  result.expert_hits = ReadI32List(reader);
  RETURN_IF_ERROR(reader.Finish("step result"));
  return result;
}

}  // namespace cohort
