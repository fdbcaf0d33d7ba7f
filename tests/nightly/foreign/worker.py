"""A process that tries models, each within a time limit: a line in, a line out."""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from types import FrameType
from typing import Any

import torch

from .trial import trial

SECONDS = 60  # of computing, for one model


class TooSlow(BaseException):  # not to be taken for an error of the model
    """The time for one model is over."""


def stop(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def attempt(library: str, name: str, export: str) -> dict[str, Any]:
    """What came of a model, by its shapes where it takes too long otherwise."""
    for by_shapes in (False, True):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            return trial(library, name, export, by_shapes=by_shapes)
        except TooSlow:
            outcome = f"not run: takes more than {SECONDS} seconds"
        except Exception as error:
            traceback.print_exc()
            outcome = f"broken: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
            break
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return {"library": library, "model": name, "outcome": outcome}


def main() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, stop)
    for line in sys.stdin:
        started = time.process_time()
        found = attempt(*json.loads(line))
        found["seconds"] = round(time.process_time() - started, 1)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
