"""A process that tries models, each within a time limit: a line in, a line out."""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from types import FrameType

import torch

from .trial import trial

SECONDS = 60  # of computing, for one model


class TooSlow(BaseException):  # not to be taken for an error of the model
    """The time for one model is over."""


def stop(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def main() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, stop)
    for line in sys.stdin:
        library, name, export = json.loads(line)
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            found = trial(library, name, export)
        except TooSlow:
            found = {
                "library": library,
                "model": name,
                "outcome": f"not run: takes more than {SECONDS} seconds",
            }
        except Exception as error:
            traceback.print_exc()
            text = f"broken: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
            found = {"library": library, "model": name, "outcome": text}
        signal.setitimer(signal.ITIMER_PROF, 0)
        found["seconds"] = round(time.process_time() - started, 1)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
