"""The device and the processes of one run, as torchrun starts them, and how they agree or end.

Each has the model and takes its part of every batch. Together they compute what one process would
compute with all of the batch.
"""

import contextlib
import copy
import datetime
import os
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ...basics.errors import one_line
from ._global_batch_norm import with_global_batch_norm
from ._inputs import logits_of

Result = TypeVar("Result")
PATIENCE = datetime.timedelta(minutes=30)  # one may download a data set while the others wait
LOST = ("gloo", "NCCL", "closed by peer", "reset by peer", "timed out", "Broken pipe")


class PeerFailed(Exception):
    """Another process of the run has failed, and says why."""


@dataclass(frozen=True)
class Processes:
    """This process, ``rank`` of ``count``; the default is a run of one process.

    All methods but ``part`` and ``own_randomness`` wait until every process has called them.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0  # among those on this machine
    device: torch.device | str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this is the one that prints, reads the folder of the run and writes there."""
        return self.rank == 0

    def part(self, images: int) -> tuple[slice, float]:
        """This process's images of a batch, and the weight that their mean loss has in the average
        over the processes, which is then the mean over the batch."""
        if images < self.count:  # one without images would hold up the others
            return slice(0, images), 1.0
        start, end = (images * rank // self.count for rank in (self.rank, self.rank + 1))
        return slice(start, end), (end - start) * self.count / images

    def sum(self, tensor: Tensor) -> Tensor:
        """Over all processes; ``tensor`` stays as it is."""
        total = tensor.clone()
        if self.count > 1:
            distributed.all_reduce(total)
        return total

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """What fails in here in one process fails in all: the first one that failed raises its own
        exception, all others PeerFailed."""
        failure = None
        try:
            yield
        except Exception as error:
            failure = error
        failed = torch.zeros(self.count, device=self.device)
        failed[self.rank] = failure is not None
        failed = self.sum(failed)
        if failure is not None and int(failed.argmax()) == self.rank:
            raise failure
        if failed.any():
            raise PeerFailed from failure

    def from_first(self, function: Callable[[], Result]) -> Result:
        """What ``function()`` gives in the first process, in all of them."""
        box: list[Any] = [None]
        with self.agreeing():
            if self.first:
                box = [function()]
        if self.count > 1:
            distributed.broadcast_object_list(box)
        return box[0]

    def in_turns(self, function: Callable[[], Result]) -> Result:
        """``function()`` in the first process of each machine, then in the others, which find there
        what it has left on the disk."""
        for turn in (True, False):
            with self.agreeing():
                if turn == (self.local_rank == 0):
                    result = function()
        return result

    def own_randomness(self, seed: int, epoch: int) -> None:
        """Another random state for each process, for dropout; a resumed run finds it again."""
        if not self.first:
            torch.manual_seed((seed + 7919 * epoch + 104_729 * self.rank) % 2**63)

    def shared(self, model: nn.Module) -> nn.Module:
        """A model with the parameters and buffers of ``model``, whose gradients and batch
        statistics are those of all processes."""
        tensors = [*model.parameters(), *model.buffers()]
        twin = with_global_batch_norm(copy.deepcopy(model, {id(each): each for each in tensors}))
        # without further outputs (Inception), from which no gradient would come
        twin.register_forward_hook(lambda module, images, output: logits_of(output))
        # a static graph may leave parameters unused, and the penalty uses some outside of forward
        return DistributedDataParallel(twin, static_graph=True)


SINGLE = Processes()


def find_device(name: str) -> torch.device:
    """The device ``name``, tried out; ``"auto"`` is cuda where there is one, else cpu."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        float(torch.zeros(1, device=device))  # fails on "meta" as well, which computes nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        known = "auto, cpu or cuda" if torch.cuda.is_available() else "auto or cpu"
        raise ValueError(f"device needs one that is here, {known}, got {name!r}") from error
    return device


class Terminated(KeyboardInterrupt):
    """What SIGTERM raises within ``terminable()``."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends a run in here as Ctrl-C does, where Python lets this thread handle signals."""

    def terminate(*_: object) -> NoReturn:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Repeatable GPU kernels and a random state of its own, in here only."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        devices = range(torch.cuda.device_count()) if device.type == "cuda" else ()
        with torch.random.fork_rng(list(devices)):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def process_device(name: str) -> torch.device:
    """The device of this process; of several with "cuda", each makes another GPU its current one,
    or fails: the first of a machine with a ValueError, the others with PeerFailed."""
    if _number("WORLD_SIZE", 1) == 1:
        return find_device(name)
    local_rank, here = _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1)
    try:
        if name not in ("auto", "cpu", "cuda"):
            raise ValueError(f"several processes train on device 'cpu' or 'cuda', got {name!r}")
        if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
            gpus = torch.cuda.device_count()
            if gpus < here:
                found = f"{here} processes, {gpus} GPU{'s' * (gpus != 1)} here"
                ways = "start fewer or train on the cpu"
                raise ValueError(f"each process needs a GPU of its own: {found}; {ways}")
            torch.cuda.set_device(local_rank)
        return find_device(name)
    except ValueError:
        if local_rank > 0:
            raise PeerFailed from None
        raise


@contextlib.contextmanager
def join_processes(device: torch.device) -> Iterator[Processes]:
    """Join the other processes that torchrun has started; ConnectionError where one is lost."""
    rank, count = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if count == 1:
        yield SINGLE
        return
    on_gpu, failed = device.type == "cuda", True
    try:
        gpu = torch.device("cuda", torch.cuda.current_device()) if on_gpu else None
        backend = "nccl" if on_gpu else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE, device_id=gpu)
        with warnings.catch_warnings():
            # "This is not an error": a 1x1 kernel has several right strides
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield Processes(rank, count, _number("LOCAL_RANK", 0), device)
        failed = False
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):
            raise
        reason = re.sub(r"\[[^]]*\]:?\d*:?", " ", str(error))  # places in C++ files, addresses
        why = f"which was killed or says itself why it failed ({one_line(reason).split('. ')[0]})"
        raise ConnectionError(f"process {rank} of {count} has lost another one, {why}") from error
    finally:
        # closed connections tell the others of a failure; NCCL would wait for them here, there the
        # end of this process has to tell
        if distributed.is_initialized() and not (failed and on_gpu):
            distributed.destroy_process_group()


def _number(name: str, default: int) -> int:
    """What torchrun tells its processes; without it, a run has one process."""
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    return int(os.environ.get(name, default)) if launched else default
