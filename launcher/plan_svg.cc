#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_format.h"
#include "launcher/plan_report.h"

namespace cohort {
namespace {

// Pixels.
constexpr double kLeft = 118;  // labels of the axis and of the rows below it
constexpr double kTop = 84;
constexpr double kHeight = 360;  // of the stacks
constexpr double kRow = 20;
constexpr double kLegendWidth = 250;
constexpr double kLabelHeight = 13;  // a segment as high as this says its bytes
constexpr double kLeastWidth = 660;  // of the title
// Where all but the KV cache is less than this part of the memory, it gets more of the height than
// its share: kEnlarged of it.
constexpr double kSmall = 0.4;
constexpr double kEnlarged = 0.62;
// Of cells; equal ranges have equal colours.
constexpr std::array<const char*, 8> kCellColors = {"#dbe7f4", "#f6e3cf", "#dcefdc", "#ecdff2",
                                                    "#f9dede", "#e4e4d0", "#d5eeee", "#e8e0d8"};

// What one column of the picture stands for.
struct Column {
  size_t first = 0, last = 0;  // positions in layout.ranks
  const RankPlan* rank = nullptr;
  bool is_single() const { return first == last; }
};

int64_t Occupied(const RankPlan& rank) {
  int64_t bytes = 0;
  for (const MemoryPart& part : MemoryParts(rank)) bytes += part.bytes;
  return bytes;
}

// Neighbouring ranks that hold the same, as the positions of the first and the last.
std::vector<std::pair<size_t, size_t>> EqualRuns(const LayoutPlan& layout) {
  std::vector<std::pair<size_t, size_t>> runs;
  for (size_t i = 0; i < layout.ranks.size(); ++i) {
    if (!runs.empty() && HoldTheSame(layout.ranks[runs.back().first], layout.ranks[i])) {
      runs.back().second = i;
    } else {
      runs.emplace_back(i, i);
    }
  }
  return runs;
}

// Each rank, or equal neighbours, or where those are too many, equally many neighbours.
std::vector<std::pair<size_t, size_t>> Spans(const LayoutPlan& layout) {
  const size_t world = layout.ranks.size();
  std::vector<std::pair<size_t, size_t>> spans;
  if (world > kMaxColumns) spans = EqualRuns(layout);
  if (!spans.empty() && spans.size() <= kMaxColumns) return spans;
  const size_t count = std::min(world, kMaxColumns);
  spans.clear();
  for (size_t i = 0; i < count; ++i) {
    spans.emplace_back(i * world / count, (i + 1) * world / count - 1);
  }
  return spans;
}

std::vector<Column> Columns(const LayoutPlan& layout) {
  std::vector<Column> columns;
  for (const auto& [first, last] : Spans(layout)) {
    const RankPlan* fullest = &layout.ranks[first];
    for (size_t i = first; i <= last; ++i) {
      if (Occupied(layout.ranks[i]) > Occupied(*fullest)) fullest = &layout.ranks[i];
    }
    columns.push_back({first, last, fullest});
  }
  return columns;
}

std::string Escaped(StringView text) {
  std::string out;
  for (const char c : text) {
    out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : std::string(1, c);
  }
  return out;
}

class Picture {
 public:
  Picture(const PlanSubject& subject, const LayoutPlan& layout)
      : subject_(subject),
        layout_(layout),
        columns_(Columns(layout)),
        pitch_(columns_.size() <= 4   ? 112
               : columns_.size() <= 8 ? 86
                                      : 68),
        capacity_(subject.hardware.memory_bytes /
                  (subject.hardware.is_shared
                       ? static_cast<int64_t>(layout.ranks.size()) / layout.nodes
                       : 1)) {
    int64_t most = capacity_, most_without_kv = 0;
    for (const Column& column : columns_) {
      most = std::max(most, Occupied(*column.rank));
      most_without_kv = std::max(most_without_kv, Occupied(*column.rank) - column.rank->kv);
    }
    most_ = static_cast<double>(most);
    const double small = static_cast<double>(most_without_kv) * 1.03;
    bend_ = small < kSmall * most_ ? small : most_;
    bend_height_ = bend_ < most_ ? kEnlarged * kHeight : kHeight;
    width_ =
        std::max(kLeastWidth, kLeft + pitch_ * static_cast<double>(columns_.size()) + kLegendWidth);
  }

  std::string Draw() {
    Title();
    Axis();
    for (size_t i = 0; i < columns_.size(); ++i) Stack(i);
    CapacityLine();
    double bottom = Rows(kTop + kHeight + 8);
    bottom = Groups(bottom);
    const double legend_bottom = Legend();
    const double height = std::max(bottom, legend_bottom) + 16;
    return absl::StrFormat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
        "height=\"%.0f\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" "
        "font-size=\"11\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n%s</svg>\n",
        width_, height, width_, height, body_);
  }

 private:
  double X(size_t column) const { return kLeft + pitch_ * static_cast<double>(column); }
  // The scale is finer below the bend.
  double Y(double bytes) const {
    const double below = std::min(bytes, bend_) / bend_ * bend_height_;
    const double above =
        bytes > bend_ ? (bytes - bend_) / (most_ - bend_) * (kHeight - bend_height_) : 0;
    return kTop + kHeight - below - above;
  }

  void Text(double x, double y, StringView anchor, StringView text, StringView more = "") {
    absl::StrAppendFormat(&body_, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s%s>%s</text>\n",
                          x, y, anchor, more.empty() ? "" : " ", more, Escaped(text));
  }

  void Box(double x, double y, double width, double height, StringView fill, StringView more = "") {
    absl::StrAppendFormat(
        &body_, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"%s%s/>\n", x,
        y, width, height, fill, more.empty() ? "" : " ", more);
  }

  void Line(double x1, double y1, double x2, double y2, StringView more) {
    absl::StrAppendFormat(&body_, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n",
                          x1, y1, x2, y2, more);
  }

  void Title() {
    const Parallelism& parallelism = layout_.parallelism;
    Text(16, 26, "start",
         absl::StrFormat("%s in %s on %d x %s: tp %d, dp %d, ep %d", subject_.model,
                         std::string(NameOf(subject_.dtype)), subject_.gpus, subject_.hardware.name,
                         parallelism.tp, parallelism.dp, parallelism.ep),
         "font-size=\"15\" font-weight=\"bold\"");
    const std::string verdict =
        layout_.fits ? absl::StrCat("room for ", CountText(layout_.kv_tokens), " tokens of KV")
                     : absl::StrCat("does not fit: ", BytesText(layout_.missing_bytes),
                                    " missing on the fullest rank");
    Text(16, 46, "start",
         absl::StrFormat("%s; the slowest rank reads %.3f of the mean", verdict, layout_.imbalance),
         layout_.fits ? "" : "fill=\"#b00020\"");
    Text(16, 63, "start",
         absl::StrFormat(
             "predicted, not measured: %.2f ms per token at batch 1, prefill %s tokens/s",
             layout_.predicted.decode.total() * 1e3,
             CountText(static_cast<int64_t>(layout_.predicted.prefill_tokens_per_second))),
         "fill=\"#555\"");
  }

  void Tick(double bytes, StringView text) {
    Line(kLeft - 4, Y(bytes), X(columns_.size()) - 10, Y(bytes), "stroke=\"#e4e4e4\"");
    Text(kLeft - 8, Y(bytes) + 4, "end", text);
  }

  // Round numbers, some five of them below the bend, and the top.
  void Axis() {
    double step = std::pow(10, std::floor(std::log10(bend_ / 4)));
    if (bend_ / step > 25) step *= 5;
    if (bend_ / step > 10) step *= 2;
    for (double bytes = 0; bytes <= bend_ * 1.0001; bytes += step) {
      if (bend_ < most_ && Y(bytes) - Y(bend_) < kLabelHeight)
        continue;  // its label would be there
      Tick(bytes, bytes == 0 ? "0" : TickText(bytes, step));
    }
    if (bend_ == most_) return;
    for (const double bytes : {bend_ + (most_ - bend_) / 2, most_}) {
      Tick(bytes, BytesText(static_cast<int64_t>(bytes)));
    }
    Line(kLeft - 4, Y(bend_), X(columns_.size()) - 10, Y(bend_),
         "stroke=\"#888\" stroke-dasharray=\"2 3\"");
    Text(kLeft - 8, Y(bend_) + 4, "end", "other scale", "font-size=\"9\" fill=\"#888\"");
  }

  static std::string TickText(double bytes, double step) {
    const double unit = step >= 1e9 ? 1e9 : step >= 1e6 ? 1e6 : 1e3;
    const char* name = step >= 1e9 ? "GB" : step >= 1e6 ? "MB" : "kB";
    return absl::StrFormat("%.0f %s", bytes / unit, name);
  }

  void Stack(size_t index) {
    const double x = X(index) + 3;
    const double width = pitch_ - 16;
    double bytes = 0;
    for (const MemoryPart& part : MemoryParts(*columns_[index].rank)) {
      const double bottom = Y(bytes);
      bytes += static_cast<double>(part.bytes);
      const double top = Y(bytes);
      const std::string title = absl::StrCat(part.name, ": ", CountText(part.bytes), " bytes");
      absl::StrAppend(&body_, "<g><title>", title, "</title>");
      Box(x, top, width, bottom - top, part.color,
          bottom - top > 2 ? "stroke=\"white\" stroke-width=\"0.5\"" : "");
      if (bottom - top >= kLabelHeight) {
        Text(x + width / 2, (top + bottom) / 2 + 4, "middle", BytesText(part.bytes),
             absl::StrCat("font-size=\"10\"", part.is_dark ? " fill=\"white\"" : ""));
      }
      absl::StrAppend(&body_, "</g>\n");
    }
  }

  void CapacityLine() {
    const double y = Y(static_cast<double>(capacity_));
    Line(kLeft - 4, y, X(columns_.size()) - 10, y,
         "stroke=\"#b00020\" stroke-width=\"1.2\" stroke-dasharray=\"5 3\"");
  }

  // A row below the stacks: which ones each rank has, or how many. Equal ranges have one colour.
  void Row(double y, Range RankPlan::*range, bool says_which) {
    std::vector<Range> known;
    for (size_t i = 0; i < columns_.size(); ++i) {
      const Range cell = columns_[i].rank->*range;
      const bool is_range = says_which && columns_[i].is_single();
      if (is_range && cell.size() > 0) {
        const auto found = std::find(known.begin(), known.end(), cell);
        const size_t number = static_cast<size_t>(found - known.begin());
        if (found == known.end()) known.push_back(cell);
        Box(X(i) + 3, y, pitch_ - 16, kRow - 4, kCellColors[number % kCellColors.size()],
            "rx=\"3\"");
      }
      Text(X(i) + 3 + (pitch_ - 16) / 2, y + 12, "middle",
           is_range ? RangeText(cell) : CountText(cell.size()), "font-size=\"10\"");
    }
  }

  double Rows(double y) {
    const RankPlan& first = layout_.ranks.front();
    struct RowKind {
      const char* name;
      Range RankPlan::*range;
      bool is_shown;
      bool says_which;  // of these, where a column is one rank; otherwise how many
    };
    const bool has_experts = first.experts.size() > 0;
    const RowKind kinds[] = {
        {"query heads", &RankPlan::query_heads, true, true},
        {"KV heads", &RankPlan::kv_heads, true, true},
        {"FFN columns", &RankPlan::ffn_columns, first.weights.dense_ffn > 0, false},
        {"experts", &RankPlan::experts, has_experts, true},
        {"expert columns", &RankPlan::expert_columns, has_experts, false},
        {"shared columns", &RankPlan::shared_expert_columns, has_experts, false},
        {"vocabulary rows", &RankPlan::vocabulary, true, false},
    };
    Text(kLeft - 8, y + 12, "end", "rank", "font-weight=\"bold\"");
    for (size_t i = 0; i < columns_.size(); ++i) {
      const Range ranks = {layout_.ranks[columns_[i].first].rank,
                           layout_.ranks[columns_[i].last].rank + 1};
      Text(X(i) + 3 + (pitch_ - 16) / 2, y + 12, "middle", RangeText(ranks),
           "font-weight=\"bold\"");
    }
    y += kRow;
    for (const RowKind& kind : kinds) {
      if (!kind.is_shown) continue;
      Text(kLeft - 8, y + 12, "end", kind.name);
      Row(y, kind.range, kind.says_which);
      y += kRow;
    }
    return y;
  }

  // Brackets over the ranks that attend to the same sequences.
  double Groups(double y) {
    const size_t tp = static_cast<size_t>(layout_.parallelism.tp);
    if (layout_.parallelism.dp == 1 || columns_.size() != layout_.ranks.size()) return y;
    Text(kLeft - 8, y + 14, "end", "dp group");
    for (size_t first = 0; first < columns_.size(); first += tp) {
      const double left = X(first) + 4;
      const double right = X(first + tp) - 14;
      Line(left, y + 3, right, y + 3, "stroke=\"#666\" stroke-width=\"1.5\"");
      Text((left + right) / 2, y + 16, "middle", absl::StrCat(first / tp), "font-size=\"10\"");
    }
    return y + kRow;
  }

  // Kinds from the top of the stacks to their bottom, with the bytes of all ranks.
  double Legend() {
    std::vector<MemoryPart> totals;
    for (const RankPlan& rank : layout_.ranks) {
      for (const MemoryPart& part : MemoryParts(rank)) {
        const auto found = std::find_if(totals.begin(), totals.end(), [&](const MemoryPart& total) {
          return StringView(total.name) == part.name;
        });
        if (found == totals.end()) {
          totals.push_back(part);
        } else {
          found->bytes += part.bytes;
        }
      }
    }
    const double x = X(columns_.size()) + 14;
    double y = kTop + 6;
    Text(x, y, "start", "all ranks together", "font-weight=\"bold\"");
    y += 10;
    std::reverse(totals.begin(), totals.end());
    for (const MemoryPart& total : totals) {
      Box(x, y, 14, 14, total.color);
      y = LegendLine(x + 20, y, total.name, total.bytes);
    }
    Line(x, y + 8, x + 14, y + 8,
         "stroke=\"#b00020\" stroke-width=\"1.2\" stroke-dasharray=\"5 3\"");
    y = LegendLine(x + 20, y, subject_.hardware.is_shared ? "memory of a rank" : "memory of a GPU",
                   capacity_) +
        8;
    if (layout_.host_bytes > 0)
      y = LegendLine(x, y, "embedding, in host memory", layout_.host_bytes);
    y = LegendLine(x, y, "checkpoint", layout_.checkpoint_bytes);
    return LegendLine(x, y, "held more than once", layout_.replicated_bytes);
  }

  double LegendLine(double x, double y, StringView name, int64_t bytes) {
    Text(x, y + 11, "start", name);
    Text(X(columns_.size()) + kLegendWidth - 26, y + 11, "end", BytesText(bytes));
    return y + kRow;
  }

  const PlanSubject& subject_;
  const LayoutPlan& layout_;
  const std::vector<Column> columns_;
  const double pitch_;
  const int64_t capacity_;
  double most_ = 1;         // bytes at the top
  double bend_ = 1;         // bytes where the scale changes
  double bend_height_ = 1;  // pixels
  double width_ = 0;
  std::string body_;
};

}  // namespace

std::string PlanSvg(const PlanSubject& subject, const LayoutPlan& layout) {
  return Picture(subject, layout).Draw();
}

}  // namespace cohort
