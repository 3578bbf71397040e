"""What the compiler says of every kernel: registers, shared memory, spills. Nothing is compiled or run here.

    compile_report.py check BUILD    fails on a spill, and where COMPILED.md lacks a kernel or has one too many
    compile_report.py write BUILD    brings COMPILED.md up to date for the architectures of BUILD

BUILD is a build folder with the CUDA plugin in it: kernels/cuda/compile.sh has left the reports of ptxas there.
"""

import pathlib
import re
import subprocess
import sys

TABLE = pathlib.Path(__file__).resolve().parent / "COMPILED.md"
HEAD = """# What the compiler says of the kernels

Registers of a thread and bytes of static shared memory of every kernel, by architecture (`registers / bytes`), as
`ptxas -v` of nvcc 13.0 reports them. No kernel spills, but `PersistentStepKernel` on sm_100 (132 and 792 bytes): the test `gpu.compiled` holds that, and that no kernel is missing
here. `python3 tests/gpu/compile_report.py write BUILD` writes this file; kernels of files that were not compiled for an
architecture have `-`.
"""

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(sm_\w+)'")
# Nine warps get 168 registers each: enough on the others. Named in kernels/cuda/README.md.
KNOWN_SPILLS = {("persistent_step.cu", "sm_100")}
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


def entries_of(text):
    """(mangled name, architecture, registers, shared bytes, spilled bytes) of each kernel of a report."""
    kernel = None
    spilled = 0
    for line in text.splitlines():
        if match := ENTRY.search(line):
            kernel, spilled = match.groups(), 0
        elif kernel and (match := SPILLS.search(line)):
            spilled = int(match[2]) + int(match[3])
        elif kernel and (match := USED.search(line)):
            shared = SHARED.search(line)
            yield (*kernel, int(match[1]), int(shared[1]) if shared else 0, spilled)
            kernel = None


def demangled(names):
    """Kernel names as the source has them, without namespaces and parameters."""
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return [short(name) for name in done.stdout.splitlines()]


def short(name):
    name = re.sub(r"\(anonymous namespace\)::|cohort::cuda::|cohort::|^void ", "", name)
    depth = 0
    for index, letter in enumerate(name):  # the parameters begin outside of <...>
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0 and index > 0:
            name = name[:index]
            break
    return re.sub(r"\((?:int|bool|long|unsigned int)\)", "", name)


def read_build(build):
    """{(file, kernel): {architecture: (registers, shared bytes, spilled bytes)}}."""
    found = {}
    reports = sorted(pathlib.Path(build).glob("CMakeFiles/cohort_cuda.dir/kernels/cuda/*.cu.o.ptxas"))
    if not reports:
        sys.exit(f"{build}: no reports of ptxas; build the target cohort_cuda there")
    for report in reports:
        if not pathlib.Path(str(report).removesuffix(".ptxas")).exists():
            continue
        entries = list(entries_of(report.read_text(encoding="utf-8")))
        for kernel, entry in zip(demangled([entry[0] for entry in entries]), entries):
            place = found.setdefault((report.name.removesuffix(".o.ptxas"), kernel), {})
            place[entry[1]] = entry[2:]
    return found


def read_table(path):
    """{(file, kernel): {architecture: "registers / bytes"}}."""
    found, architectures = {}, []
    if not path.exists():
        return found
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| file"):
            architectures = cells[2:]
        elif line.startswith("| `"):
            found[(cells[0].strip("`"), cells[1].strip("`"))] = dict(zip(architectures, cells[2:]))
    return found


def write(build, path=TABLE):
    table, now = read_table(path), read_build(build)
    for key, by_architecture in now.items():
        row = table.setdefault(key, {})
        for architecture, (registers, shared, _) in by_architecture.items():
            row[architecture] = f"{registers} / {shared}"
    table = {key: row for key, row in table.items() if key in now}
    architectures = sorted({name for row in table.values() for name in row},
                           key=lambda name: int(re.sub(r"\D", "", name)))
    lines = [HEAD, f"| file | kernel | {' | '.join(architectures)} |", "|---|---|" + "---|" * len(architectures)]
    for (file, kernel), row in sorted(table.items()):
        cells = " | ".join(row.get(name, "-") for name in architectures)
        lines.append(f"| `{file}` | `{kernel}` | {cells} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def problems(now, table):
    for (file, kernel), by_architecture in now.items():
        for architecture, (_, _, spilled) in by_architecture.items():
            if spilled and (file, architecture) not in KNOWN_SPILLS:
                yield f"{file}: {kernel} spills {spilled} bytes on {architecture}"
            if architecture not in table.get((file, kernel), {}):
                yield f"COMPILED.md lacks {kernel} of {file} on {architecture}"
    for file, kernel in table.keys() - now.keys():
        yield f"COMPILED.md has {kernel} of {file}, which is not built"


def check(build):
    found = list(problems(read_build(build), read_table(TABLE)))
    if found:
        sys.exit("\n".join(found + [f"python3 tests/gpu/compile_report.py write {build} writes COMPILED.md anew"]))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("check", "write"):
        sys.exit(__doc__)
    {"check": check, "write": write}[sys.argv[1]](sys.argv[2])
