# awk -f table.awk rows.tsv RESULTS.jsonl...: the table of RESULTS.md, then what was measured beside it. A row without
# a measurement says so; nothing is filled in for it.
BEGIN { FS = "\t" }

# The value behind a key of one flat line of JSON.
function field(line, key,    rest) {
  if (!match(line, "\"" key "\": ")) return ""
  rest = substr(line, RSTART + RLENGTH)
  if (substr(rest, 1, 1) == "\"") {
    rest = substr(rest, 2)
    return substr(rest, 1, index(rest, "\"") - 1)
  }
  sub(/[,}].*/, "", rest)
  return rest
}

function duration(s) {
  if (s < 1e-3) return sprintf("%.1f us", s * 1e6)
  if (s < 1) return sprintf("%.3f ms", s * 1e3)
  return sprintf("%.2f s", s)
}

function rate(row) {
  if (operations[row] > 0 && (bytes[row] == 0 || operations[row] / bytes[row] > 400))
    return sprintf("%.0f TFLOP/s", operations[row] / seconds[row] / 1e12)
  if (bytes[row] >= 1e12 * seconds[row]) return sprintf("%.2f TB/s", bytes[row] / seconds[row] / 1e12)
  if (bytes[row] > 0) return sprintf("%.1f GB/s", bytes[row] / seconds[row] / 1e9)
  return duration(seconds[row])
}

# Measured here, not taken from a data sheet; 0 where the step that measures them did not run.
function best_rate(amount, first, second,    a, b) {
  a = (first in seconds) ? amount[first] / seconds[first] : 0
  b = (second in seconds) ? amount[second] / seconds[second] : 0
  return a > b ? a : b
}

# Seconds that the limits allow at best, 0 where they are not known.
function limit_of(row, kind,    by_bytes, by_operations) {
  by_bytes = copy_rate > 0 ? bytes[row] / copy_rate : 0
  by_operations = product_rate > 0 ? operations[row] / product_rate : 0
  if (kind == "copy") return by_bytes
  if (kind == "product") return by_operations
  if (kind == "floor") return (by_bytes > 0 && by_operations > 0) ? (by_bytes > by_operations ? by_bytes : by_operations) : 0
  return 0
}

function verdict(value, bar, more_is_better) {
  if (bar == "-") return ""
  if (more_is_better) return value >= bar ? "met" : "**missed**"
  return value <= bar ? "met" : "**missed**"
}

/^#/ { next }
FNR == NR {
  order[++rows] = $1; what[$1] = $2; kind[$1] = $3; bar[$1] = $4; predicted[$1] = $5; step[$1] = $6
  next
}
{
  name = field($0, "row")
  if (name == "device") { device = field($0, "name"); next }
  if (name == "") next
  if (field($0, "ratio") != "") { ratio[name] = field($0, "ratio") + 0 }
  else {
    seconds[name] = field($0, "seconds") + 0
    bytes[name] = field($0, "bytes") + 0
    operations[name] = field($0, "operations") + 0
  }
  note[name] = field($0, "note")
  if (!(name in kind) && !(name in others)) { others[name] = 1; other_order[++other_count] = name }
  # The best of the forms of a read stream is the row.
  if (index(name, "limit.read.") == 1 && (!("limit.read" in seconds) ||
      bytes[name] / seconds[name] > bytes["limit.read"] / seconds["limit.read"])) {
    seconds["limit.read"] = seconds[name]; bytes["limit.read"] = bytes[name]; note["limit.read"] = name
  }
}

END {
  copy_rate = best_rate(bytes, "limit.copy", "limit.copy.driver")
  product_rate = best_rate(operations, "limit.product", "limit.product.wide")
  if (device != "") printf "Device: %s\n\n", device
  print "| | figure | limit | fraction | bar | predicted | | step |"
  print "|---|---|---|---|---|---|---|---|"
  for (i = 1; i <= rows; ++i) {
    row = order[i]; figure = (device == "" ? "not yet run on a GPU" : "not run"); limit = ""; fraction = ""; told = ""
    is_ratio = kind[row] == "ratio"
    if (is_ratio && (row in ratio)) {
      figure = sprintf("%.2f", ratio[row]); told = verdict(ratio[row], bar[row], 1)
    } else if (!is_ratio && (row in seconds) && seconds[row] > 0) {
      figure = kind[row] == "figure" || kind[row] == "rate" ? rate(row) : duration(seconds[row])
      if (kind[row] == "seconds") told = verdict(seconds[row], bar[row], 0)
      if (kind[row] == "rate") told = verdict(bytes[row] / seconds[row] / 1e9, bar[row], 1)
      floor_seconds = limit_of(row, kind[row])
      if (floor_seconds > 0) {
        limit = duration(floor_seconds); fraction = sprintf("%.2f", floor_seconds / seconds[row])
        told = verdict(floor_seconds / seconds[row], bar[row], 1)
      } else if (kind[row] == "copy" || kind[row] == "product" || kind[row] == "floor") {
        told = "no limit measured"
      }
    }
    printf "| %s | %s | %s | %s | %s | %s | %s | %s |\n", what[row], figure, limit, fraction,
           (kind[row] == "seconds" && bar[row] != "-") ? bar[row] " s" : (kind[row] == "rate" ? bar[row] " GB/s" : bar[row]),
           predicted[row], told, step[row]
  }
  if (other_count > 0) {
    print "\n| measured beside them | time | rate | |"
    print "|---|---|---|---|"
    for (i = 1; i <= other_count; ++i) {
      row = other_order[i]
      if (row in ratio) printf "| %s | | %.3f | %s |\n", row, ratio[row], note[row]
      else if (seconds[row] > 0) printf "| %s | %s | %s | %s |\n", row, duration(seconds[row]), rate(row), note[row]
    }
  }
}
