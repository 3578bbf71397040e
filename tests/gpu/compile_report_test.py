"""compile_report.py on reports written by hand."""

import compile_report

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN6cohort4cuda10FillKernelEPfi' for 'sm_90a'
ptxas info    : Function properties for _ZN6cohort4cuda10FillKernelEPfi
    {stack} bytes stack frame, {stack} bytes spill stores, 0 bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, 1024 bytes smem, 380 bytes cmem[0]
"""


def build_with(tmp_path, **numbers):
    folder = tmp_path / "CMakeFiles/cohort_cuda.dir/kernels/cuda"
    folder.mkdir(parents=True)
    (folder / "fill.cu.o").touch()
    (folder / "fill.cu.o.ptxas").write_text(REPORT.format(**numbers), encoding="utf-8")
    (folder / "removed.cu.o.ptxas").write_text(REPORT.format(**numbers), encoding="utf-8")  # its object is gone
    return tmp_path


def test_reads_registers_and_shared_memory(tmp_path):
    found = compile_report.read_build(build_with(tmp_path, stack=0))
    assert found == {("fill.cu", "FillKernel"): {"sm_90a": (24, 1024, 0)}}


def test_names_spills_and_kernels_that_the_table_lacks_or_has_too_many(tmp_path):
    now = compile_report.read_build(build_with(tmp_path, stack=8))
    table = {("fill.cu", "OldKernel"): {"sm_90a": "1 / 0"}}
    found = "\n".join(compile_report.problems(now, table))
    assert "FillKernel spills 8 bytes on sm_90a" in found
    assert "lacks FillKernel of fill.cu on sm_90a" in found
    assert "has OldKernel of fill.cu, which is not built" in found


def test_what_it_writes_it_reads_and_keeps_other_architectures(tmp_path):
    table = tmp_path / "COMPILED.md"
    table.write_text("| file | kernel | sm_80 |\n|---|---|---|\n| `fill.cu` | `FillKernel` | 20 / 0 |\n", encoding="utf-8")
    compile_report.write(build_with(tmp_path / "build", stack=0), table)
    assert compile_report.read_table(table) == {("fill.cu", "FillKernel"): {"sm_80": "20 / 0", "sm_90a": "24 / 1024"}}
