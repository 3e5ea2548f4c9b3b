"""Compiles kernels.cu by NVRTC, nvidia-cuda-nvrtc-cu12 12.9 of PyPI: compile.py DIRECTORY."""
import ctypes
import glob
import os
import sys
import sysconfig
from pathlib import Path

packages = sysconfig.get_path("purelib")
nvrtc = ctypes.CDLL(glob.glob(packages + "/nvidia/cuda_nvrtc/lib/libnvrtc.so.*")[0])
source = Path(__file__).with_name("kernels.cu").read_bytes()
directory = Path(sys.argv[1]).resolve()
# Debugging sections name the directory.
os.chdir("/")

for name, options in {
    "sm_60": ["--gpu-architecture=compute_60", "--fmad=false"],
    "sm_75": ["--gpu-architecture=compute_75"],
    "sm_90": ["--gpu-architecture=compute_90"],
    "sm_80.debug": ["--gpu-architecture=compute_80", "--device-debug"],
}.items():
    options = [option.encode() for option in options]
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None) == 0
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, ptx)
    Path(directory, f"kernels.{name}.ptx").write_bytes(ptx.value)
