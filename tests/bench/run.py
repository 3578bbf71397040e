#!/usr/bin/env python3
"""Measures Cohort beside llama.cpp and prints the table of tests/bench/README.md.

Every repetition measures all sides once, one after the other; it is appended to the results file at once. A run
that was cut off goes on where it stopped when it is started again with the same results file.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import random
import subprocess
import sys
import time

import report
import rows
from cohort_server import ROOT


def cpu_times():
    """(idle, all) clock ticks of the machine so far."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def share_of_others(seconds=0.3):
    """How busy the machine is while this program waits and its servers are idle."""
    idle, total = cpu_times()
    time.sleep(seconds)
    idle_after, total_after = cpu_times()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def machine():
    model = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if "model name" in line)
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo", encoding="ascii") if "MemTotal" in line)
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory / 2**20:.0f} GiB, Linux {platform.release()}"


def cohort_version(binary):
    version = subprocess.run([binary, "version"], capture_output=True, text=True, check=True).stdout.strip()
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
    return f"{version} ({commit.strip() or 'no commit known'})"


def describe(context, options):
    """What was measured on what: the first record of a run."""
    versions = [cohort_version(options.cohort)]
    for name, tools in (("llama.cpp", context.llama_cpp()), ("ik_llama.cpp", context.ik_llama_cpp())):
        if tools:
            versions.append(f"{name} {tools.commit()}")
    return {"row": report.RUN, "time": now(), "machine": machine(), "versions": versions, "note": options.note}


def append(path, record):
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def repeat(row, context, options, end):
    """Measures what is missing of one row. False when there was no time left for all of it."""
    wanted = options.repetitions or row.repetitions
    done = len(report.records_of(report.read_records(options.results), row))
    longest = 0.0
    while done < wanted:
        if time.monotonic() + longest > end:
            print(f"{row.name}: {done} of {wanted} repetitions; no time for more", file=sys.stderr)
            return False
        busy, started = share_of_others(), time.monotonic()
        values = row.measure(context)
        longest = max(longest, time.monotonic() - started)
        append(options.results, {"row": row.name, "time": now(), "others_busy": busy, "values": values})
        done += 1
        shown = ", ".join(f"{name} {report.format_number(value)}" for name, value in values.items())
        print(f"{row.name} {done}/{wanted} ({time.monotonic() - started:.1f} s): {shown}", file=sys.stderr)
    return True


def parse_arguments():
    names = [row.name for row in rows.ROWS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which rows (default: all): {', '.join(names)}")
    parser.add_argument("--results", type=pathlib.Path, required=True, help="JSON lines, one per repetition")
    parser.add_argument("--model", type=pathlib.Path, help="checkpoint directory of make_random_checkpoint.py")
    parser.add_argument("--gguf", type=pathlib.Path, help="the same weights for llama.cpp")
    parser.add_argument("--cohort", type=pathlib.Path, default=ROOT / "build/bin/cohort",
                        help="the binary; the programs of tests/bench are beside it (default: build/bin/cohort)")
    parser.add_argument("--llama-cpp", type=pathlib.Path, help="directory of llama.cpp's built tools; without it, "
                        "only Cohort is measured")
    parser.add_argument("--ik-llama-cpp", type=pathlib.Path, help="directory of ik_llama.cpp's llama-bench")
    parser.add_argument("--repetitions", type=int, help="of every row (default: 7; memory 1)")
    parser.add_argument("--minutes", type=float, default=60, help="start nothing that would end later (default: 60)")
    parser.add_argument("--note", default="", help="a line for the table's head")
    parser.add_argument("--report", action="store_true", help="measure nothing; print the table of the results file")
    options = parser.parse_args()
    unknown = set(options.rows) - set(names)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if not options.report and not options.model:
        parser.error("--model is needed to measure")
    if options.llama_cpp and not options.gguf:
        parser.error("--llama-cpp needs --gguf")
    return options


def main():
    options = parse_arguments()
    if not options.report:
        end = time.monotonic() + options.minutes * 60
        context = rows.Context(options, random.Random(1))
        append(options.results, describe(context, options))
        try:
            for row in rows.ROWS:
                if row.name in (options.rows or [row.name]):
                    repeat(row, context, options, end)
        finally:
            context.stop()
    print(report.render(report.read_records(options.results)))


if __name__ == "__main__":
    main()
