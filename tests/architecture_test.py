"""Holds the architecture: dependencies point one way, special headers stay in their place, files stay small."""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A folder may include headers of these folders (its own always).
ALLOWED = {
    "kernels": set(),
    "parallel": {"kernels"},
    "runtime": {"kernels", "parallel"},
    "launcher": {"kernels", "parallel", "runtime", "cohort", "google", "grpc"},
}
PROJECT_FOLDERS = {"kernels", "parallel", "runtime", "launcher", "cohort", "google", "tests"}
TOP_LEVEL = {
    "CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md", "deploy", "kernels", "launcher",
    "parallel", "proto", "runtime", "tests",
}
MAX_LINES = 500
EMULATOR = ("tests", "cuda_emulator")
PTX = (pathlib.Path("kernels/cuda/ptx.cuh"), pathlib.Path("kernels/cuda/wgmma.cuh"))

INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', re.MULTILINE)
CONDITIONAL = re.compile(r"^\s*#\s*(?:if|ifdef|elif)\b.*$", re.MULTILINE)


def place(path):
    """The folder of the rules that a source belongs to, or None."""
    return path.parts[0] if path.parts[0] in ALLOWED else None


def include_violations(path, text):
    folder = place(path)
    for header in INCLUDE.findall(text):
        first = header.split("/")[0]
        if folder and "/" in header and first in PROJECT_FOLDERS and first != folder:
            if first not in ALLOWED[folder]:
                yield f"{path}: includes {header}, which {folder}/ may not know"
        if re.match(r"(grpcpp|grpc|grpc\+\+|google/protobuf)(/|$)", header) and folder not in ("launcher", None):
            yield f"{path}: includes {header}; gRPC and Protobuf belong in launcher/"
        cuda_folders = (("kernels", "cuda"), EMULATOR)
        if re.match(r"(cuda|cublas|cudnn|nvtx|nvml)\w*(\.h|/)", header) and path.parts[:2] not in cuda_folders:
            yield f"{path}: includes {header}; CUDA headers belong under kernels/cuda/"
        nccl_places = (pathlib.Path("kernels/cuda/communicator.h"),)
        if re.match(r"nccl(_\w+)?\.h$", header) and path not in nccl_places and path.parts[:2] != EMULATOR:
            yield f"{path}: includes {header}; NCCL belongs behind kernels/cuda/communicator.h"
        if header.startswith("gloo/") and path != pathlib.Path("parallel/gloo_mesh.cc"):
            yield f"{path}: includes {header}; gloo belongs in parallel/gloo_mesh.cc"
        if header.startswith("absl/") and path.parts[:2] == ("kernels", "cuda"):
            yield f"{path}: includes {header}; no abseil inside the plugin"


def text_violations(path, text):
    lines = text.count("\n")
    if lines > MAX_LINES:
        yield f"{path}: {lines} lines, more than {MAX_LINES}"
    for line in CONDITIONAL.findall(text):
        if not re.search(r"ifndef \w+_H_$|__cplusplus", line):
            yield f"{path}: preprocessor condition '{line.strip()}'; use another source file"


def kernel_violations(path, text):
    """What only nvcc would understand, where the emulated GPU's compiler must too."""
    if "<<<" in text:
        yield f"{path}: kernels are launched through Launch() of kernels/cuda/launch.h"
    if path not in PTX and re.search(r"\basm\b|extern\s+__shared__", text):
        yield f"{path}: PTX and dynamic shared memory belong in {PTX[0]} and {PTX[1]}"


def violations(root, files):
    for path in files:
        if path.suffix not in (".h", ".cc", ".cu", ".cuh"):
            continue
        text = (root / path).read_text(encoding="utf-8")
        yield from include_violations(path, text)
        if place(path):
            yield from text_violations(path, text)
        if path.parts[:2] == ("kernels", "cuda"):
            yield from kernel_violations(path, text)


def tracked_files():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.splitlines()
    return [pathlib.Path(name) for name in listed if (ROOT / name).exists()]


def test_dependencies_point_one_way():
    files = tracked_files()
    assert len(files) > 50
    assert list(violations(ROOT, files)) == []


def test_nothing_else_at_the_top_level():
    top = {path.parts[0] for path in tracked_files() if not path.parts[0].startswith(".")}
    assert top <= TOP_LEVEL


def test_the_emulated_gpu_has_every_function_of_ptx():
    function = re.compile(r"^(?:__host__ )?(?:__device__ )?(?:inline |constexpr )?[\w:]+ \*?(\w+)\(", re.MULTILINE)
    for header, one in zip(PTX, ("MmaBf16", "WgmmaBf16")):
        names = [set(function.findall((ROOT / folder / header).read_text(encoding="utf-8")))
                 for folder in ("", "tests/cuda_emulator/include")]
        assert one in names[0]
        assert names[0] - {"SharedAddress", "EvictFirstPolicy", "EvictLastPolicy"} <= names[1]


def test_no_generated_code_is_committed():
    assert [path for path in tracked_files() if re.search(r"\.pb\.(cc|h)$|_pb2", path.name)] == []


def test_the_rules_notice_what_they_forbid(tmp_path):
    cases = {
        "kernels/a.cc": '#include "runtime/engine.h"\n',
        "parallel/a.h": '#include "launcher/log.h"\n',
        "runtime/a.cc": "#include <grpcpp/grpcpp.h>\n",
        "runtime/b.cc": "#include <cuda_runtime.h>\n",
        "parallel/b.cc": "#include <nccl.h>\n",
        "parallel/c.cc": "#include <gloo/context.h>\n",
        "kernels/cuda/a.cc": '#include "absl/status/status.h"\n',
        "kernels/cuda/b.cu": "Kernel<<<1, 32>>>();\n",
        "kernels/cuda/c.cu": 'asm("exit;");\n',
        "launcher/a.cc": "#if defined(SOMETHING)\n#endif\n",
        "launcher/b.cc": "\n" * (MAX_LINES + 1),
    }
    for name, text in cases.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert list(violations(tmp_path, [pathlib.Path(name)])), name
