"""The state of a training after each epoch, so that one that was killed goes on from there.

Lightning's own checkpoints are pickles; this is one safetensors file, replaced as a whole.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from sarflood.files import replacing
from sarflood.training.curve import Epoch

State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps its state, and what tells that state from that of another one.

    Attributes:
        path: The file.
        key: Says which data, settings and code the training is of; another key's state is not used.
    """

    path: Path
    key: str

    def save(self, state: State, curve: list[Epoch]) -> None:
        """Replace the file."""
        said = {"key": self.key, "curve": json.dumps([asdict(epoch) for epoch in curve])}
        whole = {name: tensor.contiguous().clone() for name, tensor in state.items()}
        with replacing(self.path) as temporary:
            save_file(whole, temporary, metadata=said)

    def load(self) -> tuple[State, list[Epoch]] | None:
        """Return what was saved; None where that is nothing, damaged, or of another training."""
        try:
            with safe_open(self.path, "pt") as file:
                said = file.metadata() or {}
                if said.get("key") != self.key:
                    return None
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, [Epoch(**row) for row in json.loads(said["curve"])]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def remove(self) -> None:
        """Delete the file; the training has ended."""
        self.path.unlink(missing_ok=True)


def optimizer_state(optimizer: Optimizer) -> State:
    """Return the moments of all parameters, by `number.name`."""
    return {
        f"{number}.{name}": value
        for number, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def restore_optimizer(optimizer: Optimizer, state: State) -> None:
    """Put back what `optimizer_state` returned."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        number, name = key.split(".", 1)
        moments.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def prefixed(prefix: str, state: State) -> State:
    """Put a name before each key."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def part(prefix: str, state: State) -> State:
    """Return what `prefixed` put in."""
    return {
        name.removeprefix(f"{prefix}."): value
        for name, value in state.items()
        if name.startswith(f"{prefix}.")
    }


def weights(network: nn.Module) -> State:
    """Return a copy of the network's weights and buffers."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
