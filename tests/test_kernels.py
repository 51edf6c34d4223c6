"""Kernels built ahead of time: for a GPU that is not there, in the place where Warp will look for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from portraitgen import kernels
from portraitgen.errors import InputError

ELF_CUDA = 190  # e_machine of a cubin


def test_cubins_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    """One process compiles for sm_120; another, which has such a device in its tables, finds every file by its name."""
    program = """
import sys
from portraitgen.kernels import compile_kernels
for path in compile_kernels([120], [8]):
    print(path)
"""
    environment = os.environ | {"WARP_CACHE_PATH": str(tmp_path)}
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert finished.returncode == 0, finished.stderr
    paths = [Path(line) for line in finished.stdout.splitlines()]
    assert len(paths) == len(set(paths)) == 5  # projection, binning, compositing, sums, mesh
    for path in paths:
        assert path.is_relative_to(tmp_path)
        content = path.read_bytes()
        assert content[:4] == b"\x7fELF"
        assert int.from_bytes(content[18:20], "little") == ELF_CUDA
        assert b"sm_120" in content

    from portraitgen._warp_projection import project
    from portraitgen._warp_rasterizer import make_cuda_kernels

    device = SimpleNamespace(
        is_cpu=False,
        is_cuda=True,
        get_cuda_compile_arch=lambda: 120,
        get_cuda_output_format=lambda preferred: preferred or "cubin",
        _get_cuda_arch_suffix=lambda arch: "",
    )
    found = {path.name for path in paths}
    for kernel in (project, *make_cuda_kernels(8)):
        assert kernel.module._get_compile_output_name(device, block_dim=256) in found


def test_command_line_names_what_it_cannot_build() -> None:
    for targets, problem in ((["sm_120"], '"sm_120" is not a target'), (["12"], "sm_12")):
        command = [sys.executable, "-m", "portraitgen.kernels", *targets]
        finished = subprocess.run(command, capture_output=True, text=True)
        assert finished.returncode == 2
        assert problem in finished.stderr
        assert "Traceback" not in finished.stderr
        assert finished.stdout == ""


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(InputError, match="sm_999"):
        kernels.compile_kernels([999])


def test_background_compilation_loads_no_warp_here(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: started.append(command))
    kernels.compile_in_background(["cpu", 90])
    assert started == [[sys.executable, "-m", "portraitgen.kernels", "--background", "cpu", "90"]]
