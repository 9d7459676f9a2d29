"""The device, and its precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rankline.errors import DeviceError
from rankline.train.device import pick_autocast, pick_device


def test_cuda_asked_for_and_absent_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(DeviceError) as caught:
        pick_device("cuda")
    assert "set device=auto or device=cpu" in str(caught.value)
    assert torch.__version__ in caught.value.found
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")


def test_bf16_is_taken_where_asked_for_and_by_itself_where_there_is_hardware() -> None:
    cpu = torch.device("cpu")
    assert pick_autocast("bf16", cpu)
    assert not pick_autocast("fp32", cpu)
    # compared with the flags that the kernel reports
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert pick_autocast("auto", cpu) == ("avx512_bf16" in flags)
