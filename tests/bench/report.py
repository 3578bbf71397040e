"""Medians, spreads and verdicts of recorded repetitions, as a Markdown page."""

import json
import statistics

from rows import ROWS


RUN = "run"  # marks the record that describes a run


def read_records(path):
    """The repetitions in a results file; none when it does not exist yet."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def records_of(records, row):
    return [record for record in records if record["row"] == row.name]


def format_number(value):
    """Three significant digits; whole numbers from a hundred on."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3f}"


def spread(values):
    return f"{format_number(min(values))} - {format_number(max(values))}"


def value_table(repetitions):
    names = {name: None for record in repetitions for name in record["values"]}  # in order, each once
    lines = ["| measured | median | smallest - largest | n |", "|---|---|---|---|"]
    for name in names:
        values = [record["values"][name] for record in repetitions if name in record["values"]]
        lines.append(f"| {name} | {format_number(statistics.median(values))} | {spread(values)} | {len(values)} |")
    return lines


def bar_lines(row, repetitions):
    """One table line per bar. Ratios are taken inside a repetition, where both sides saw the same machine."""
    for bar in row.bars:
        ratios = [ratio for ratio in (bar.ratio(record["values"]) for record in repetitions) if ratio is not None]
        wanted = f"{'at least' if bar.at_least else 'at most'} {bar.limit:g}"
        if not ratios:
            yield f"| {bar.label} | {wanted} | {bar.predicted} | - | - | not measured |"
            continue
        median = statistics.median(ratios)
        verdict = "met" if bar.passed(median) else "MISSED"
        yield f"| {bar.label} | {wanted} | {bar.predicted} | {format_number(median)} | {spread(ratios)} | {verdict} |"


def head_lines(records):
    """Date, machine and versions of every run in the file that differs from the one before."""
    runs = [{key: record[key] for key in ("machine", "versions", "note")} for record in records if record["row"] == RUN]
    for index, run in enumerate(runs):
        if index == 0 or run != runs[index - 1]:
            yield " ".join(filter(None, [f"{run['machine']}. {'; '.join(run['versions'])}.", run["note"]]))
            yield ""


def render(records):
    lines = list(head_lines(records))
    for row in ROWS:
        repetitions = records_of(records, row)
        if not repetitions:
            continue
        busy = statistics.median(record["others_busy"] for record in repetitions)
        times = f"{repetitions[0]['time']} to {repetitions[-1]['time']}"
        lines += [f"### {row.title}", "", f"{times}; other work kept {busy:.0%} of the machine busy.", ""]
        lines += ["| bar | wanted | predicted | median | smallest - largest | |", "|---|---|---|---|---|---|"]
        lines += [*bar_lines(row, repetitions), ""]
        lines += [*value_table(repetitions), ""]
    return "\n".join(lines)
