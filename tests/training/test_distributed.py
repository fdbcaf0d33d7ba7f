"""Several processes compute what one computes, each promise against a run of one process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from bsconv.experiments.training._global_batch_norm import with_global_batch_norm
from bsconv.experiments.training._job import steps_text
from bsconv.experiments.training._processes import PeerFailed, Processes, process_device
from bsconv.experiments.training._steps import Execution
from helpers.same_runs import metrics_of as rows

# Runs jobs, each with a name, a count of processes, and their code, in which rank and the job's
# values are defined. They are forked after the imports and find what torchrun writes in their
# environment.
LAUNCHER = """
import json, multiprocessing, os, signal, socket
import pytest, torch
from torch import nn
from bsconv.__main__ import main
from bsconv.experiments.training import _models, _train as training
from bsconv.experiments.training._processes import join_processes
from bsconv.pytorch import BSConvS
from helpers import small_runs

torch.set_num_threads(1)
torch.optim.SGD([torch.zeros(1)], 0.1)  # imports 900 modules, once is enough


def use(train, dropout=0.0, test=12):
    def net(classes):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), BSConvS(8, 8, 3, p=1.0),
            nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout),
            nn.Linear(8, classes),
        )

    small_runs.use(pytest.MonkeyPatch(), net, small_runs.noise(train, test))


def second_output():
    class Two(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.net, self.head = plain("", classes), nn.Linear(4, classes)

        def forward(self, inputs):
            logits = self.net(inputs)
            return (logits, self.head(logits)) if self.training else logits

    plain = _models.build_model
    _models.build_model = lambda name, classes, **_: Two(classes)


def in_float64():
    # so exact that equal functions give equal curves, which float32 soon drives apart
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double


def at_batch(number, function, *arguments):
    # calls function before that batch, counted from 1 over all epochs
    plain, calls = training.augment, iter(range(1, 10**6))

    def augment(*inputs, **settings):
        if next(calls) == number:
            function(*arguments)
        return plain(*inputs, **settings)

    training.augment = augment


def command(*arguments):
    names = ("train", "--model", "cifar_resnet20", "--batch-size", "16", "--alpha", "0.5")
    settings = ("--learning-rate", "0.05", "--epochs", "2", "--device", "cpu")
    raise SystemExit(main([*names, *settings, *arguments]))


def start(job, rank, port):
    name, count = job["name"], str(job["count"])
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=count, LOCAL_WORLD_SIZE=count,
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo",
    )
    os.dup2(os.open(f"{name}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    exec(compile(job["code"], name, "exec"), {**globals(), **job, "rank": rank})


fork = multiprocessing.get_context("fork")
for job in json.load(open("jobs.json")):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [fork.Process(target=start, args=(job, rank, port)) for rank in range(job["count"])]
    for child in children:
        child.start()
    for child in children:
        child.join()
    json.dump([child.exitcode for child in children], open(f"{job['name']}.codes", "w"))
"""


def train_job(name: str, count: int, *arguments: str, before: str = "use(40)") -> dict[str, Any]:
    """Trains into the folder that ``name`` begins with; ``before`` is code."""
    code = f"{before}\ncommand('--out', name.split('-')[0], *{arguments!r})"
    return {"name": name, "count": count, "code": code}


def codes(folder: Path, name: str) -> list[int]:
    print(printed(folder, name))  # pytest shows it if the test fails
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
from bsconv.experiments.training._global_batch_norm import with_global_batch_norm
with join_processes(torch.device("cpu")) as processes:
    results = []
    for settings, inputs, gradients in torch.load("cases.pt", weights_only=True):
        norm = getattr(nn, f"BatchNorm{max(inputs.dim() - 2, 1)}d")(inputs.shape[1], **settings)
        shared = with_global_batch_norm(norm) if processes.count > 1 else norm
        part, _ = processes.part(len(inputs))
        for _ in range(2):
            own = inputs[part].detach().requires_grad_()
            outputs = shared(own)
            outputs.backward(gradients[part])
        results.append({
            "outputs": outputs.detach(),
            "gradient": own.grad,
            "weights": [processes.sum(parameter.grad) for parameter in norm.parameters()],
            "state": norm.state_dict(),
            "eval": shared.eval()(inputs).detach(),
        })
    torch.save(results, f"{name}.{rank}.pt")
"""
TOLERANCES = {torch.float64: 1e-7, torch.float32: 1e-3, torch.bfloat16: 2e-2}


def batch_norm_cases() -> list[tuple[dict[str, Any], Tensor, Tensor]]:
    def case(*shape: int, far: float = 0.0, dtype: torch.dtype = torch.float64, **settings: Any):
        inputs = (3 * torch.rand(shape, dtype=torch.float64) + far).to(dtype)
        gradients = torch.randn(shape, dtype=torch.float64).to(dtype)
        own = torch.float32 if dtype == torch.bfloat16 else dtype
        return {"dtype": own, **settings}, inputs, gradients

    settings, inputs, gradients = case(7, 5, 4, 3)
    return [
        (settings, inputs, gradients),
        (settings, inputs.contiguous(memory_format=torch.channels_last), gradients),
        case(6, 3, 2, 2, affine=False),
        case(6, 3, 2, 2, momentum=None, eps=0.1),
        case(6, 3, 2, 2, track_running_stats=False),
        case(5, 4),
        case(5, 4, 3),
        case(5, 2, 2, 3, 2),
        # float32 keeps 1e-4 of these values, the variance is 0.75
        case(9, 3, 5, 5, far=1000.0, dtype=torch.float32),
        case(8, 4, 3, 3, dtype=torch.bfloat16),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_batch_norm_of_several_processes_is_that_of_the_whole_batch(ran: Path, count: int) -> None:
    name = f"norm{count}"
    assert codes(ran, name) == [0] * count
    parts = [torch.load(ran / f"{name}.{rank}.pt", weights_only=True) for rank in range(count)]
    for number, expected in enumerate(torch.load(ran / "norm1.0.pt", weights_only=True)):
        found = [part[number] for part in parts]
        tolerance = dict.fromkeys(("rtol", "atol"), TOLERANCES[expected["outputs"].dtype])
        for name in ("outputs", "gradient"):
            whole = torch.cat([part[name] for part in found])
            torch.testing.assert_close(whole, expected[name], **tolerance, msg=f"{number} {name}")
        for part in found:
            assert part["state"].keys() == expected["state"].keys()
            for name in ("eval", "weights", "state"):
                torch.testing.assert_close(part[name], expected[name], **tolerance)
            torch.testing.assert_close(part["state"], found[0]["state"], rtol=0, atol=0)


def test_batch_norm_that_does_more_is_refused() -> None:
    class Activated(nn.BatchNorm2d):
        pass

    message = r"several processes need plain BatchNorm layers.*got Activated at 1"
    with pytest.raises(ValueError, match=message):
        with_global_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), Activated(4)))


# --- what processes do together -------------------------------------------------------------------

TOGETHER = """
from pathlib import Path
from bsconv.experiments.training import PeerFailed
def visit():
    come_later = any(Path().glob("visit*"))
    Path(f"visit{rank}").touch()
    return come_later
with join_processes(torch.device("cpu")) as processes:
    come_later = processes.in_turns(visit)
    torch.manual_seed(0)
    processes.own_randomness(0, 1)
    found = [come_later, torch.rand(()).item()]
    try:
        processes.in_turns(lambda: 1 // (2 - rank))
    except (ZeroDivisionError, PeerFailed) as error:
        found.append(type(error).__name__)
json.dump(found, open(f"{name}.{rank}.json", "w"))
"""


@pytest.mark.slow
def test_the_first_one_prepares_and_dropout_differs(ran: Path) -> None:
    assert codes(ran, "together") == [0, 0, 0]
    found = [json.loads((ran / f"together.{rank}.json").read_text()) for rank in range(3)]
    come_later, drawn, failed = zip(*found, strict=True)
    assert come_later == (False, True, True)
    assert len(set(drawn)) == 3
    assert failed == ("PeerFailed", "PeerFailed", "ZeroDivisionError")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:1", "several processes train on device 'cpu' or 'cuda', got 'cuda:1'"),
        ("cuda", "each process needs a GPU of its own: 2 processes, 1 GPU here; start fewer"),
        ("auto", "each process needs a GPU of its own: 2 processes, 1 GPU here; start fewer"),
    ],
)
def test_devices_that_processes_cannot_have(monkeypatch, device: str, message: str) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=message):
        process_device(device)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(PeerFailed):  # one line on each machine is enough
        process_device(device)


# --- whole runs -----------------------------------------------------------------------------------

FILES = ["checkpoint.pt", "config.json", "metrics.jsonl", "model.safetensors"]
EXACT = "in_float64(); "
# in the second of three batches of epoch 2
KILL = "at_batch(5, signal.raise_signal, signal.SIGKILL); "
DROPOUT = "use(40, dropout=0.5); "
JOBS = [
    *({"name": f"norm{count}", "count": count, "code": BATCH_NORM} for count in (1, 2, 3)),
    {"name": "together", "count": 3, "code": TOGETHER},
    # batches of 16, 16 and 8
    *(train_job(f"even{count}", count, before=EXACT + "use(40)") for count in (1, 2, 3)),
    # the last batch has two images, fewer than three processes
    *(train_job(f"odd{count}", count, before=EXACT + "use(34)") for count in (1, 3)),
    *(train_job(f"single{count}", count) for count in (1, 2)),
    # the first process evaluates two batches of the three, and the other one
    *(train_job(f"fast{count}", count, "--recipe", "fast", before=EXACT + "use(40, test=37)")
      for count in (1, 2)),
    # a second output that the loss leaves alone, as Inception has one
    *(train_job(f"second{count}", count, before=EXACT + "use(40); second_output()")
      for count in (1, 2)),
    *(train_job(f"half{count}", count, "--precision", "bfloat16") for count in (1, 2)),
    train_job("up-killed", 1, before=EXACT + KILL + "use(40)"),
    train_job("up-resumed", 2, "--resume", before=EXACT + "use(40)"),
    train_job("down-killed", 2, before=EXACT + KILL + "use(40)"),
    train_job("down-resumed", 1, "--resume", before=EXACT + "use(40)"),
    train_job("straight", 2, before=DROPOUT),
    train_job("broken-killed", 2, before="if rank: " + KILL + "\n" + DROPOUT),
    train_job("broken-resumed", 2, "--resume", before=DROPOUT),
    train_job("broken-finished", 2, "--resume", before=DROPOUT),
    train_job("broken-again", 2, before=DROPOUT),
    train_job("small", 3, "--batch-size", "2"),
    train_job("nowhere", 2, "--epochs", "0"),
    train_job("nan", 2, before="if rank: at_batch(5, lambda: setattr(training, 'reg_loss', "
              "lambda model, alpha: torch.tensor(float('nan'))))\nuse(40)"),
    train_job("stopped", 2, before="at_batch(5, signal.raise_signal, signal.SIGINT)\nuse(40)"),
    train_job("terminated", 2, before="at_batch(5, signal.raise_signal, signal.SIGTERM)\nuse(40)"),
]  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all jobs have run; what they print is in ``<name>.<rank>.log``."""
    folder = tmp_path_factory.mktemp("ran")
    torch.manual_seed(0)
    torch.save(batch_norm_cases(), folder / "cases.pt")
    (folder / "jobs.json").write_text(json.dumps(JOBS))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", LAUNCHER],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return folder


def assert_same_run(one: Path, other: Path, weights: bool = True) -> None:
    assert len(rows(one)) == len(rows(other)) == 2
    for first, second in zip(rows(one), rows(other), strict=True):
        assert second["test_top1"] == first["test_top1"]
        assert second == pytest.approx(first, rel=1e-9)
    if weights:
        first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
        torch.testing.assert_close(second, first, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["even2", "even3", "odd3", "fast2", "second2"])
def test_several_processes_train_as_one(ran: Path, other: str) -> None:
    assert codes(ran, other) == [0] * int(other[-1])
    # running variances of odd3 count images that two processes share twice
    assert_same_run(ran / f"{other[:-1]}1", ran / other, weights=other != "odd3")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tolerance"), [("single", 1e-5), ("half", 1e-2)])
def test_in_lower_precision_the_first_steps_agree(ran: Path, kind: str, tolerance: float) -> None:
    one, two = (rows(ran / f"{kind}{count}")[0]["train_loss"] for count in (1, 2))
    assert two == pytest.approx(one, rel=tolerance)


def test_several_processes_say_that_they_do_not_compile() -> None:
    chosen = Execution("float32", compile=True, plans={})
    assert steps_text(chosen, Processes()) == "steps in float32, compiled"
    assert steps_text(chosen, Processes(0, 2)) == (
        "2 processes, steps in float32, eager (torch.compile takes one process)"
    )


@pytest.mark.slow
def test_the_first_process_alone_writes_and_prints(ran: Path) -> None:
    for name in ("even1", "even2"):
        assert {path.name for path in (ran / name).iterdir()} == {*FILES, ".lock"}
    alone, first, second = printed(ran, "even1"), printed(ran, "even2"), printed(ran, "even2", 1)
    assert second == ""
    assert [line.split(":")[0] for line in first.splitlines()] == [
        alone.splitlines()[0],
        "2 processes, steps in float32, eager, 0 of 1 BSConv layers merged, 1 thread",
        "epoch 1",
        "epoch 2",
    ]
    one, two = (list(load_file(ran / name / FILES[-1])) for name in ("even1", "even2"))
    assert one == two


# --- ends and new beginnings ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count", "then"), [("up", 1, 2), ("down", 2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(ran, name, count, then) -> None:
    assert -signal.SIGKILL in codes(ran, f"{name}-killed")
    assert codes(ran, f"{name}-resumed") == [0] * then
    assert "resuming after epoch 1" in printed(ran, f"{name}-resumed")
    assert_same_run(ran / "even1", ran / name)


@pytest.mark.slow
def test_a_killed_process_ends_all_and_the_run_can_go_on_until_it_is_finished(ran: Path) -> None:
    assert codes(ran, "broken-killed") == [2, -signal.SIGKILL]
    last = printed(ran, "broken-killed").splitlines()[-1]
    assert last.startswith("bsconv train: process 0 of 2 has lost another one, which was killed or")
    assert last.endswith(
        "go on with: torchrun --nproc-per-node 2 -m bsconv train --out broken --resume"
    )
    assert codes(ran, "broken-resumed") == [0, 0]
    # with as many processes to the last bit, dropout included
    weights = [(ran / name / "model.safetensors").read_bytes() for name in ("straight", "broken")]
    assert weights[0] == weights[1]
    assert rows(ran / "straight") == rows(ran / "broken")
    assert codes(ran, "broken-finished") == [0, 0]
    assert "broken is finished already, nothing to do" in printed(ran, "broken-finished")
    assert printed(ran, "broken-finished", 1) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("broken-again", 2, "broken already holds a run (checkpoint.pt); resume it with"),
        ("small", 3, "batch_size needs an image for each process in a step, got 2 for 3 processes"),
        ("nowhere", 2, "epochs needs a whole number >= 1, got 0"),
        ("nan", 2, "the training loss became nan in epoch 2 of 2; try a learning rate below"),
    ],
)
def test_what_stops_all_processes_is_said_once(ran, name: str, count: int, message: str) -> None:
    assert codes(ran, name) == [2] * count
    said = "".join(printed(ran, name, rank) for rank in range(count)).splitlines()
    lines = [line for line in said if line.startswith("bsconv train: ")]
    assert len(lines) == 1
    assert message in lines[0]
    if name == "nan":
        assert lines[0].endswith("(nan keeps the checkpoint of epoch 1)")
        assert len(rows(ran / "nan")) == 1
    elif name != "broken-again":
        assert not (ran / name).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("stopped", 130), ("terminated", 143)])
def test_interrupted_processes_end_cleanly(ran: Path, name: str, code: int) -> None:
    assert codes(ran, name)[0] == code
    assert printed(ran, name).splitlines()[-1] == (
        "bsconv train: interrupted; go on with: "
        f"torchrun --nproc-per-node 2 -m bsconv train --out {name} --resume"
    )
    assert "Traceback" not in printed(ran, name, 1)
    assert len(rows(ran / name)) == 1


# --- torchrun -------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_torchrun(tmp_path: Path) -> None:
    data = "--dataset synthetic --train-limit 128 --test-limit 32 --image-size 8 --epochs 2"
    command = (
        f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node=2 "
        f"-m bsconv train --model cifar_resnet20_bsconvs_p1d4 {data} --device cpu --out run"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command.split(), cwd=tmp_path, env=environment, check=True)
    assert len(rows(tmp_path / "run")) == 2
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*FILES, ".lock"}
