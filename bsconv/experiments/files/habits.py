"""Where programs put the weights in a file, and what they put before their names: one table."""

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

# entries that hold the weights, and names that a class gives its one network; the first counts
NETWORKS = (
    "state_dict", "model_state_dict", "model_state", "net_state_dict", "model", "net", "network",
    "params", "weights", "online_model", "generator", "backbone",
)  # fmt: skip
# the same, averaged over the steps of a training; taken before the others
AVERAGED = re.compile(r"(.*_)?(ema|swa|avg|averaged|average)(_.*)?")
# what DataParallel, torch.compile, FSDP and activation checkpointing put into names
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
COUNTERS = {"n_averaged", "num_updates", "initted", "step", "decay"}  # of averaged weights


def state_dict_in(content: Any) -> dict[str, Tensor]:
    """The weights in what a file holds, within whatever, by their plain names.

    Where they stand twice, averaged ones are taken, and a warning says so. Entries other than
    tensors are left out. ValueError says what is there instead.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"holds a {type(content).__name__}, not a state dict")
    inner = {key: _flat(value) for key, value in content.items() if isinstance(value, Mapping)}
    counts = {key: len(flat) for key, flat in inner.items() if flat}
    tensors = {key: each for key, each in content.items() if isinstance(each, Tensor)}
    if not all(isinstance(key, str) for key in tensors):
        raise ValueError("holds tensors without names, not a state dict")
    known = _ranked(counts)
    most = max((counts[key] for key in known), default=0)
    known = [key for key in known if 2 * counts[key] >= most]  # not "avg_loss" of a few numbers
    if known or (len(counts) == 1 and not any("." in key for key in tensors)):
        return state_dict_in(content[_first_of(known or list(counts))])
    tensors = tensors or _flat(content)  # of several networks: part_for finds the one
    plain = {name: tensors[given] for name, given in plain_names(tensors).items()}
    heads = dict.fromkeys(name.partition(".")[0] for name in plain if name not in COUNTERS)
    if not heads:
        raise ValueError(f"holds no state dict; it has {some(map(repr, content)) or 'nothing'}")
    known = _ranked(heads)
    if len(known) == len(heads) and not plain.keys() & heads.keys():
        networks = {head: _below(f"{head}.", plain) for head in known}
        if len({frozenset(part) for part in networks.values()}) == 1:
            return state_dict_in(networks[_first_of(known)])
    wrapped = any(given.partition(".")[0] in WRAPPERS for given in tensors)
    kept = {name: tensor for name, tensor in plain.items() if not (wrapped and name in COUNTERS)}
    return {name: tensor.to_dense() for name, tensor in kept.items()}


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """By its plain form, without wrappers and a prefix of all, each of ``names``."""
    plain: dict[str, str] = {}
    for name in names:
        *parts, last = name.split(".")
        short = ".".join([*(part for part in parts if part not in WRAPPERS), last])
        if short in plain:
            raise ValueError(f"holds {short} twice, as {plain[short]} and as {name}")
        plain[short] = name
    while len(heads := {name.partition(".")[0] for name in plain}) == 1 and _ranked(heads):
        if not all("." in name for name in plain):
            break
        plain = {short.partition(".")[2]: name for short, name in plain.items()}
    return plain


def part_for(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor] | None:
    """Of ``state`` what a network with these plain names needs; None where it lacks some.

    It may be a part of what was trained, as in a LightningModule; ValueError where several fit.
    """
    wanted = {name for name in names if not name.endswith("num_batches_tracked")}
    last = f".{min(wanted, default='')}"
    heads = [name.removesuffix(last) for name in state if name.endswith(last)]
    parts = {head: _below(f"{head}.", state) for head in heads}
    found = {head: part for head, part in parts.items() if wanted <= part.keys()}
    if known := _ranked(found):
        return found[_first_of(known + [head for head in found if head not in known])]
    first = next(iter(found.values()), None)
    pairs = [(first[name], part[name]) for part in found.values() for name in wanted if first]
    if not all(one.dtype == other.dtype and one.equal(other) for one, other in pairs):
        raise ValueError(f"holds {' and '.join(found)}, which both fit; save a file of one of them")
    return first


def _below(head: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose names begin with ``head``, by the rest of them."""
    return {name[len(head) :]: state[name] for name in state if name.startswith(head)}


def some(names: Iterable[str], most: int = 3) -> str:
    """The first ``most`` names, and how many there are more."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _flat(value: Any, name: str = "") -> dict[str, Tensor]:
    """The tensors that have names in a mapping, at any depth, by these names with dots."""
    if isinstance(value, Tensor):
        return {name: value}
    found: dict[str, Tensor] = {}
    for key, each in value.items() if isinstance(value, Mapping) else ():
        if isinstance(key, str):
            found |= _flat(each, f"{name}.{key}".lstrip("."))
    return found


def _ranked(names: Iterable[Any]) -> list[str]:
    """Those that are known to hold weights, the first choice first."""
    texts = [name for name in names if isinstance(name, str)]
    averaged = [name for name in texts if AVERAGED.fullmatch(name)]
    return averaged + [name for name in NETWORKS if name in texts]


def _first_of(known: list[str]) -> str:
    """A warning says which others there are."""
    if len(known) > 1:
        others = " and ".join(map(repr, known[1:]))
        what = "averaged weights" if AVERAGED.fullmatch(known[0]) else "weights"
        warnings.warn(f"the {what} {known[0]!r} are taken, not {others}", stacklevel=4)
    return known[0]
