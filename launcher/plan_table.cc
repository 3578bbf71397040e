#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "launcher/plan_report.h"

namespace cohort {
namespace {

// More would not fit a line.
constexpr size_t kMaxClasses = 9;
constexpr size_t kMaxPieces = 4;

std::string DegreesText(const Parallelism& parallelism) {
  return absl::StrCat("tp ", parallelism.tp, ", dp ", parallelism.dp, ", ep ", parallelism.ep);
}

// Rows of cells, the first left-aligned, the others right-aligned.
class TextTable {
 public:
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

  std::string Render() const {
    std::vector<size_t> widths;
    for (const std::vector<std::string>& row : rows_) {
      widths.resize(std::max(widths.size(), row.size()));
      for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    std::string text;
    for (const std::vector<std::string>& row : rows_) {
      for (size_t i = 0; i < row.size(); ++i) {
        const std::string padding(widths[i] - row[i].size(), ' ');
        absl::StrAppend(&text, i == 0 ? row[i] : "  ", i == 0 ? padding : padding + row[i]);
      }
      text.append("\n");
    }
    return text;
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Ranks that hold the same, wherever they stand.
using RankClass = std::vector<const RankPlan*>;

std::vector<RankClass> RankClasses(const LayoutPlan& layout) {
  std::vector<RankClass> classes;
  for (const RankPlan& rank : layout.ranks) {
    const auto same = std::find_if(classes.begin(), classes.end(), [&](const RankClass& known) {
      return HoldTheSame(*known.front(), rank);
    });
    if (same == classes.end()) {
      classes.push_back({&rank});
    } else {
      same->push_back(&rank);
    }
  }
  return classes;
}

// "0-3,6" of ranks 0, 1, 2, 3 and 6; of many pieces the first, and how many ranks there are.
std::string RanksText(const RankClass& ranks) {
  std::vector<std::string> pieces;
  for (size_t first = 0; first < ranks.size();) {
    size_t last = first;
    while (last + 1 < ranks.size() && ranks[last + 1]->rank == ranks[last]->rank + 1) ++last;
    pieces.push_back(RangeText({ranks[first]->rank, ranks[last]->rank + 1}));
    first = last + 1;
  }
  if (pieces.size() <= kMaxPieces) return absl::StrJoin(pieces, ",");
  return absl::StrCat(pieces.front(), ",.. (", ranks.size(), ")");
}

// A row of the table: the same number of every class.
template <class Number>
void AddRow(StringView name, const std::vector<RankClass>& classes, Number number,
            TextTable& table) {
  std::vector<std::string> row = {std::string(name)};
  bool is_shown = false;
  for (const RankClass& ranks : classes) {
    const std::string text = number(*ranks.front());
    row.push_back(text.empty() ? "-" : text);
    is_shown |= !text.empty();
  }
  if (is_shown) table.Add(std::move(row));
}

std::string SizeText(Range range) { return range.size() > 0 ? CountText(range.size()) : ""; }

void AddCuts(const std::vector<RankClass>& classes, TextTable& table) {
  const auto size = [](Range RankPlan::*range) {
    return [range](const RankPlan& rank) { return SizeText(rank.*range); };
  };
  AddRow("query heads", classes, size(&RankPlan::query_heads), table);
  AddRow("KV heads", classes, size(&RankPlan::kv_heads), table);
  AddRow("FFN columns", classes, size(&RankPlan::ffn_columns), table);
  AddRow("experts", classes, size(&RankPlan::experts), table);
  AddRow("  columns of each", classes, size(&RankPlan::expert_columns), table);
  AddRow("shared columns", classes, size(&RankPlan::shared_expert_columns), table);
  AddRow("vocabulary rows", classes, size(&RankPlan::vocabulary), table);
  AddRow(
      "KV bytes / token", classes,
      [](const RankPlan& rank) { return CountText(rank.kv_per_token); }, table);
}

std::vector<std::string> PartNames(const std::vector<RankClass>& classes) {
  std::vector<std::string> names;
  for (const RankClass& ranks : classes) {
    for (const MemoryPart& part : MemoryParts(*ranks.front())) {
      if (std::find(names.begin(), names.end(), part.name) == names.end()) {
        names.emplace_back(part.name);
      }
    }
  }
  return names;
}

void AddMemory(const std::vector<RankClass>& classes, TextTable& table) {
  for (const std::string& name : PartNames(classes)) {
    AddRow(
        name, classes,
        [&](const RankPlan& rank) {
          for (const MemoryPart& part : MemoryParts(rank)) {
            if (part.name == name) return BytesText(part.bytes);
          }
          return std::string();
        },
        table);
  }
  AddRow(
      "in host memory", classes,
      [](const RankPlan& rank) { return rank.host > 0 ? BytesText(rank.host) : ""; }, table);
}

// What each rank holds; ranks that hold the same share a column.
std::string RankTable(const LayoutPlan& layout) {
  std::vector<RankClass> classes = RankClasses(layout);
  const size_t hidden = classes.size() > kMaxClasses ? classes.size() - kMaxClasses : 0;
  classes.resize(classes.size() - hidden);
  TextTable table;
  std::vector<std::string> header = {"rank"};
  for (const RankClass& ranks : classes) header.push_back(RanksText(ranks));
  table.Add(std::move(header));
  AddCuts(classes, table);
  AddMemory(classes, table);
  return absl::StrCat(
      table.Render(),
      hidden == 0 ? "" : absl::StrCat("and ", hidden, " more kinds of ranks: --json\n"));
}

std::string RatesText(const LayoutPlan& layout) {
  const Prediction& predicted = layout.predicted;
  return absl::StrFormat(
      "%.2f ms per token at batch 1, prefill %s tokens/s, %s tokens/s of %s sequences",
      predicted.decode.total() * 1e3,
      CountText(static_cast<int64_t>(predicted.prefill_tokens_per_second)),
      CountText(static_cast<int64_t>(predicted.decode_tokens_per_second)),
      CountText(predicted.decode_sequences));
}

// Sequences of `context` tokens that fit at a time; each lies in one data-parallel group.
std::string UseText(const LayoutPlan& layout, int64_t context) {
  const int64_t groups = layout.parallelism.dp;
  return absl::StrCat(CountText(layout.kv_tokens / groups / context * groups), " x ",
                      CountText(context));
}

std::string FitText(const PlanSubject& subject, const Plan& plan) {
  const LayoutPlan& layout = plan.best;
  if (!layout.fits) {
    std::string text = absl::StrFormat(
        "does not fit: %s bytes (%s) are missing on the fullest %s for %s x %s tokens\n",
        CountText(layout.missing_bytes), BytesText(layout.missing_bytes),
        subject.hardware.is_shared ? "node" : "GPU", CountText(layout.concurrency),
        CountText(layout.context));
    for (const PlanChange& change : plan.changes) {
      absl::StrAppend(&text, "             fits with ", ChangeText(change), "\n");
    }
    return text;
  }
  std::string text = absl::StrCat("fits         ", CountText(layout.kv_tokens), " tokens of KV: ");
  std::vector<std::string> uses = {UseText(layout, layout.context)};
  for (const int64_t context : {32768, 131072}) {
    if (context > layout.context && context <= layout.kv_tokens / layout.parallelism.dp) {
      uses.push_back(UseText(layout, context));
    }
  }
  text.append(absl::StrJoin(uses, ", "));
  text.append("\n");
  if (layout.host_bytes > 0) {
    absl::StrAppend(&text, "host memory  the embedding, ", BytesText(layout.host_bytes),
                    ": it fits only so, and with a short context\n");
  }
  return text;
}

}  // namespace

std::string PlanTable(const PlanSubject& subject, const Plan& plan) {
  const LayoutPlan& layout = plan.best;
  std::string text = absl::StrFormat(
      "%s in %s on %d x %s (%s), %d node%s\nlayout       %s%s\n", subject.model,
      std::string(NameOf(subject.dtype)), subject.gpus, subject.hardware.name,
      BytesText(subject.hardware.memory_bytes), layout.nodes, layout.nodes == 1 ? "" : "s",
      DegreesText(layout.parallelism),
      layout.idle_gpus > 0 ? absl::StrCat("; ", layout.idle_gpus, " GPUs idle") : "");
  absl::StrAppend(&text, FitText(subject, plan), "why          ", layout.why, "\n", "predicted    ",
                  RatesText(layout), " (not measured)\n");
  absl::StrAppendFormat(&text,
                        "weights      %s bytes of the checkpoint + %s replicated; the slowest rank "
                        "reads %.3f of the mean\n\n",
                        CountText(layout.checkpoint_bytes), CountText(layout.replicated_bytes),
                        layout.imbalance);
  absl::StrAppend(&text, RankTable(layout));
  for (const LayoutPlan& other : plan.alternatives) {
    absl::StrAppend(&text, &other == &plan.alternatives.front() ? "\n" : "", "or  ",
                    DegreesText(other.parallelism), ": ", other.why, "\n");
  }
  return text;
}

}  // namespace cohort
