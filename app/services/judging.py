"""What others than the model say of a crystal: rules, an independent network, the training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from app.services.chemistry import formula
from app.services.datasets import formulas_of
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import CachedSplit
from cdvae_core.errors import CdvaeError

if TYPE_CHECKING:
    from cdvae_core.metrics.predictor import Predictor


@dataclass(frozen=True)
class Verdict:
    """About one crystal.

    Attributes:
        structure_valid, composition_valid: by the published rules.
        prop: by the independent network, None where there is none or it has no answer.
        novel: in no known crystal's place, None where nothing is known to compare with.
    """

    structure_valid: bool
    composition_valid: bool
    prop: float | None
    novel: bool | None

    @property
    def valid(self) -> bool:
        return self.structure_valid and self.composition_valid


@dataclass(eq=False)
class Judge:
    """Judges one crystal after the other; shared by sessions, it keeps nothing of them.

    Args:
        network: of the checkpoint's property on its dataset, or None.
        known: the training split, or None.
    """

    network: Predictor | None
    known: CachedSplit | None
    _places: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.known is not None:
            for place, name in enumerate(formulas_of(self.known)):
                self._places.setdefault(name, []).append(place)

    def __call__(self, crystal: Crystal) -> Verdict:
        from cdvae_core.metrics.composition_rule import published_rule
        from cdvae_core.metrics.structure_rule import shortest_pair, structure_valid
        from cdvae_core.structures import to_structure

        sound = structure_valid(shortest_pair(to_structure(crystal)), crystal.volume)
        return Verdict(
            sound,
            published_rule(crystal.atomic_numbers),
            self.prop(crystal) if sound else None,
            self._novel(crystal),
        )

    def prop(self, crystal: Crystal) -> float | None:
        """The independent network's word on the Niggli cell."""
        from cdvae_core.structures import niggli, to_structure

        if self.network is None:
            return None
        try:
            return float(self.network.predict([niggli(to_structure(crystal))])[0])
        except (CdvaeError, ValueError, ArithmeticError):
            return None

    def _novel(self, crystal: Crystal) -> bool | None:
        from cdvae_core.metrics.reconstruction import match

        if self.known is None:
            return None
        same: Sequence[int] = self._places.get(formula(crystal.atomic_numbers), ())
        return not any(np.isfinite(match(crystal, self.known.crystal(i))) for i in same)
