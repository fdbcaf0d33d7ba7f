"""Several processes compute what one computes, each promise against a run of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bsconv.experiments.distributed import ALONE, Processes, StoppedElsewhere, join_processes
from bsconv.experiments.global_batch_norm import with_global_batch_norm

# Runs jobs, each in so many processes that are forked after the imports and find in their
# environment what torchrun writes there.
LAUNCHER = """
import json, os, signal, socket, sys, traceback
import torch
from bsconv.experiments import distributed
from bsconv.experiments.distributed import join_processes

torch.set_num_threads(1)


def start(code, rank, count, port, names):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo",
    )
    os.dup2(os.open(f"{names['name']}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    ended = 1
    try:
        exec(compile(code, names["name"], "exec"), names)
        ended = 0
    except SystemExit as error:
        ended = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended)


for job in json.load(open("jobs.json")):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(job["count"]):
        child = os.fork()
        if child == 0:
            start(job["code"], rank, job["count"], port, {**globals(), **job, "rank": rank})
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    json.dump(codes, open(f"{job['name']}.codes", "w"))
"""


def launch(folder: Path, *jobs: dict[str, Any], timeout: float = 120) -> None:
    """Each job has a ``name``, a ``count`` of processes and their ``code``, in which ``rank`` and
    the job's values are defined; what they print goes to ``<name>.<rank>.log``."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    ended = subprocess.run(
        [sys.executable, "-c", LAUNCHER],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def codes(folder: Path, name: str) -> list[int]:
    return json.loads((folder / f"{name}.codes").read_text())


def printed(folder: Path, name: str, rank: int = 0) -> str:
    return (folder / f"{name}.{rank}.log").read_text()


pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or not torch.distributed.is_available(), reason="no processes here"
)


# --- parts of a batch -----------------------------------------------------------------------------


@given(count=st.integers(1, 9), images=st.integers(1, 40))
def test_parts_make_up_the_batch_and_its_mean(count: int, images: int) -> None:
    values = torch.rand(images, dtype=torch.float64)
    parts = [Processes(rank, count).part(images) for rank in range(count)]
    weighted = [values[part].mean() * weight for part, weight in parts]
    torch.testing.assert_close(torch.stack(weighted).mean(), values.mean())
    if images >= count:
        assert torch.equal(torch.cat([values[part] for part, _ in parts]), values)
        sizes = {len(values[part]) for part, _ in parts}
        assert max(sizes) - min(sizes) <= 1
    if count == 1 or images % count == 0:
        assert {weight for _, weight in parts} == {1.0}


# --- BatchNorm ------------------------------------------------------------------------------------

BATCH_NORM = """
from torch import nn
from bsconv.experiments.global_batch_norm import GlobalBatchNorm
with join_processes("cpu") as processes:
    results = []
    for settings, inputs, gradients in torch.load("cases.pt", weights_only=True):
        norm = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[
            inputs.dim()
        ](inputs.shape[1], **settings).to(settings["dtype"])
        shared = GlobalBatchNorm.of(norm)
        part, _ = processes.part(len(inputs))
        for _ in range(2):
            own = inputs[part].detach().requires_grad_()
            outputs = shared(own)
            outputs.backward(gradients[part])
        results.append({
            "outputs": outputs.detach(),
            "gradient": own.grad,
            "eval": shared.eval()(inputs).detach(),
            "weights": [processes.sum(parameter.grad) for parameter in norm.parameters()],
            "state": norm.state_dict(),
        })
    torch.save(results, f"{name}.{rank}.pt")
"""


def batch_norm_cases() -> list[tuple[dict[str, Any], Tensor, Tensor]]:
    def case(*shape: int, far: float = 0.0, dtype: torch.dtype = torch.float32, **settings: Any):
        inputs = (3 * torch.rand(shape, dtype=torch.float64) + far).to(dtype)
        gradients = torch.randn(shape, dtype=torch.float64).to(dtype)
        own = torch.float32 if dtype == torch.bfloat16 else dtype
        return {"dtype": own, **settings}, inputs, gradients

    cases = [
        case(7, 5, 4, 3),
        case(7, 5, 4, 3, dtype=torch.float64),
        case(6, 3, 2, 2, affine=False, dtype=torch.float64),
        case(6, 3, 2, 2, momentum=None, eps=0.1, dtype=torch.float64),
        case(6, 3, 2, 2, track_running_stats=False, dtype=torch.float64),
        case(5, 4, dtype=torch.float64),
        case(5, 4, 3, dtype=torch.float64),
        case(5, 2, 2, 3, 2, dtype=torch.float64),
        case(9, 3, 5, 5, far=1000.0),
        case(8, 4, 3, 3, dtype=torch.bfloat16),
    ]
    settings, inputs, gradients = case(7, 5, 4, 3, dtype=torch.float64)
    cases.append((settings, inputs.contiguous(memory_format=torch.channels_last), gradients))
    return cases


def one_batch_norm(settings: dict[str, Any], inputs: Tensor, gradients: Tensor) -> dict[str, Any]:
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    norm = kinds[inputs.dim()](inputs.shape[1], **settings)
    for _ in range(2):
        own = inputs.clone().requires_grad_()
        outputs = norm(own)
        outputs.backward(gradients)
    found = {
        "outputs": outputs.detach(),
        "gradient": own.grad,
        "weights": [parameter.grad for parameter in norm.parameters()],
        "state": norm.state_dict(),
    }
    return {**found, "eval": norm.eval()(inputs).detach()}


@pytest.mark.parametrize("count", [2, 3])
def test_batch_norm_of_several_processes_is_that_of_the_whole_batch(
    tmp_path: Path, count: int
) -> None:
    cases = batch_norm_cases()
    torch.save(cases, tmp_path / "cases.pt")
    launch(tmp_path, {"name": "norm", "count": count, "code": BATCH_NORM})
    assert codes(tmp_path, "norm") == [0] * count, printed(tmp_path, "norm")
    parts = [torch.load(tmp_path / f"norm.{rank}.pt", weights_only=True) for rank in range(count)]
    for number, case in enumerate(cases):
        inputs = case[1]
        tolerance = {"rtol": 1e-4, "atol": 1e-4} if case[0]["dtype"] == torch.float32 else {}
        if inputs.dtype == torch.bfloat16:
            tolerance = {"rtol": 2e-2, "atol": 2e-2}
        if inputs.abs().max() > 1000:  # float32 keeps 1e-4 of these values, the variance is 0.75
            tolerance = {"rtol": 1e-3, "atol": 1e-3}
        expected = one_batch_norm(*case)
        found = [part[number] for part in parts]
        for name in ("outputs", "gradient"):
            whole = torch.cat([part[name] for part in found])
            torch.testing.assert_close(whole, expected[name], **tolerance, msg=f"{number} {name}")
        for part in found:
            assert part["state"].keys() == expected["state"].keys()
            for name in ("eval", "weights", "state"):
                torch.testing.assert_close(part[name], expected[name], **tolerance)
            torch.testing.assert_close(part["state"], found[0]["state"], rtol=0, atol=0)


def test_shared_batch_norm_keeps_parameters_buffers_and_mode() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm1d(4).eval())
    before = {
        id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    }
    keys = list(model.state_dict())
    shared = with_global_batch_norm(model)
    after = {
        id(tensor): name for name, tensor in [*shared.named_parameters(), *shared.named_buffers()]
    }
    assert after == before
    assert list(shared.state_dict()) == keys
    assert [layer.training for layer in shared] == [True, True, False]
    assert [type(layer).__name__ for layer in shared[1:]] == ["GlobalBatchNorm"] * 2


def test_batch_norm_that_does_more_is_refused() -> None:
    class Activated(nn.BatchNorm2d):
        pass

    with pytest.raises(
        ValueError, match=r"several processes need plain BatchNorm layers.*got Activated at 1"
    ):
        with_global_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), Activated(4)))


# --- what processes do together -------------------------------------------------------------------

TOGETHER = """
from bsconv.experiments.distributed import StoppedElsewhere
def fails(*ranks):
    if rank in ranks:
        raise ValueError(f"process {rank} says no")
    return rank
def tell(function, *arguments):
    try:
        return function(*arguments)
    except (ValueError, StoppedElsewhere) as error:
        return str(error) or type(error).__name__
def visit():
    seen = len(list(Path().glob("visit*")))
    Path(f"visit{rank}").touch()
    return seen
from pathlib import Path
with join_processes("cpu") as processes:
    found = [
        processes.together(fails),
        tell(processes.together, fails, 1, 2),
        processes.from_first(fails, 2),
        tell(processes.from_first, fails, 0),
        processes.in_turns(visit) > 0,
        tell(processes.in_turns, fails, 2),
        processes.sum(torch.tensor(rank + 1)).item(),
        processes.first,
    ]
    torch.manual_seed(0)
    processes.own_randomness(0, 1)
    found.append(torch.rand(()).item())
json.dump(found, open(f"{name}.{rank}.json", "w"))
assert not torch.distributed.is_initialized()
"""


def test_processes_agree_and_fail_together(tmp_path: Path) -> None:
    launch(tmp_path, {"name": "together", "count": 3, "code": TOGETHER})
    assert codes(tmp_path, "together") == [0, 0, 0], printed(tmp_path, "together")
    found = [json.loads((tmp_path / f"together.{rank}.json").read_text()) for rank in range(3)]
    elsewhere = "StoppedElsewhere"
    expected = [
        [0, elsewhere, 0, "process 0 says no", False, elsewhere, 6, True],
        [1, "process 1 says no", 0, elsewhere, True, elsewhere, 6, False],
        [2, elsewhere, 0, elsewhere, True, "process 2 says no", 6, False],
    ]
    assert [values[:-1] for values in found] == expected
    torch.manual_seed(0)
    assert found[0][-1] == torch.rand(()).item()
    assert len({values[-1] for values in found}) == 3


def test_alone_everything_is_done_here() -> None:
    model = nn.BatchNorm2d(3)
    with join_processes("cpu") as processes:
        assert processes is ALONE
        assert not torch.distributed.is_initialized()
        assert processes.shared(model) is model
        assert processes.part(5) == (slice(0, 5), 1.0)
        assert [processes.together(int, "3"), processes.from_first(int, "3")] == [3, 3]
        assert processes.in_turns(int, "3") == 3
        with pytest.raises(ValueError, match="invalid literal"):
            processes.from_first(int, "three")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("mps", "several processes train on device 'cpu' or 'cuda', got 'mps'"),
        ("cuda:1", "several processes train on device 'cpu' or 'cuda', got 'cuda:1'"),
        ("cuda", "each process needs a GPU of its own: 2 processes, 1 GPU here; start fewer"),
        ("auto", "each process needs a GPU of its own: 2 processes, 1 GPU here; start fewer"),
    ],
)
def test_devices_that_processes_cannot_have(
    monkeypatch: pytest.MonkeyPatch, device: str, message: str
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=message), join_processes(device):
        pass
    monkeypatch.setenv("LOCAL_RANK", "1")
    expected = StoppedElsewhere if "GPU" in message else ValueError
    with pytest.raises(expected), join_processes(device):
        pass
    assert not torch.distributed.is_initialized()
