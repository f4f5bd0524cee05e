"""Muon for the matrices inside the networks, AdamW for everything else, as one optimiser.

Muon (Jordan et al. 2024) replaces the momentum of a weight matrix by the nearest orthogonal matrix,
so that every direction moves equally far; `match_rms_adamw` (Liu et al. 2025) gives its updates the
size of AdamW's, so that both take learning rates of one order. Its matrices are pulled to zero, as
there: without, they grow, and the encoder, which multiplies and has no normalisation, one day gives
some crystal a latent of 1e11 (`docs/training.md`). Embeddings, the rows of which are
tokens, and what is no matrix stay with AdamW, the stacked weights of the encoder's output too.
`benchmarks/recipes.py` compares it with AdamW alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

_ADAMW_SHARE = 0.3
_WEIGHT_DECAY = 0.1  # that of Liu et al.


def matrices(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weight matrices that Muon takes, and all other parameters."""
    tokens = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    chosen: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in model.parameters():
        inner = parameter.ndim == 2 and min(parameter.shape) > 1 and id(parameter) not in tokens
        (chosen if inner else rest).append(parameter)
    return chosen, rest


class MuonAdamW(Optimizer):
    """Both optimisers behind one interface; their parameter groups are its groups.

    Args:
        model: whose parameters it updates.
        learning_rate: of Muon's matrices; the rest gets 0.3 of it.
    """

    def __init__(self, model: nn.Module, learning_rate: float) -> None:
        chosen, rest = matrices(model)
        self.parts: dict[str, Optimizer] = {
            "muon": Muon(
                chosen,
                learning_rate,
                weight_decay=_WEIGHT_DECAY,
                ns_steps=4,
                adjust_lr_fn="match_rms_adamw",
            ),
            "adamw": AdamW(rest, _ADAMW_SHARE * learning_rate, weight_decay=0.0, fused=True),
        }
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts.values() for group in part.param_groups]

    def step(  # type: ignore[override]  # torch says float; Lightning's closure gives a tensor
        self, closure: Callable[[], Tensor] | None = None
    ) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts.values():
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state_dict[name])
        for group in self.parts["muon"].param_groups:
            group["weight_decay"] = _WEIGHT_DECAY  # a state from before had none
        self.param_groups = self._groups()
