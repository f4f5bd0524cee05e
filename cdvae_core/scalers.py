"""How the lattice and the property are standardised (F.1).

The six lattice parameters are the lengths divided by N^(1/3), in Å, and the angles in degrees. A
parameter that is the same in all training crystals (every angle of a perovskite) keeps a standard
deviation of 1e-5, so that whatever the network says of it, the prediction stays at that value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cdvae_core.lattice import matrix_to_parameters

CONSTANT_STD = 1e-5


@dataclass(frozen=True)
class Scalers:
    """Means and standard deviations of the training split, as plain numbers.

    Attributes:
        lattice_mean, lattice_std: six each.
        prop_mean, prop_std: in the property's unit.
    """

    lattice_mean: tuple[float, ...] = (0.0,) * 6
    lattice_std: tuple[float, ...] = (1.0,) * 6
    prop_mean: float = 0.0
    prop_std: float = 1.0

    @classmethod
    def fit(
        cls,
        lattice: Float[Tensor, "crystals 3 3"],
        num_atoms: Int[Tensor, " crystals"],
        prop: Float[Tensor, " crystals"],
    ) -> Scalers:
        """From the training split; crystals without a property (NaN) count for the lattice only."""
        values = _scaled_parameters(lattice.double(), num_atoms)
        known = prop[~prop.isnan()].double()
        mean, std = (known.mean(), known.std(correction=0)) if len(known) else (0.0, 1.0)
        return cls(
            tuple(values.mean(0).tolist()),
            tuple((values.std(0, correction=0) + CONSTANT_STD).tolist()),
            float(mean),
            float(std) + CONSTANT_STD,
        )

    def standard_lattice(
        self, lattice: Float[Tensor, "crystals 3 3"], num_atoms: Int[Tensor, " crystals"]
    ) -> Float[Tensor, "crystals 6"]:
        values = _scaled_parameters(lattice, num_atoms)
        return (values - values.new_tensor(self.lattice_mean)) / values.new_tensor(self.lattice_std)

    def lattice_from_standard(
        self, standard: Float[Tensor, "crystals 6"]
    ) -> Float[Tensor, "crystals 6"]:
        """Lengths / N^(1/3) in Å and angles in degrees."""
        std, mean = standard.new_tensor(self.lattice_std), standard.new_tensor(self.lattice_mean)
        return standard * std + mean

    def standard_prop(self, prop: Float[Tensor, " crystals"]) -> Float[Tensor, " crystals"]:
        return (prop - self.prop_mean) / self.prop_std

    def prop_from_standard(
        self, standard: Float[Tensor, " crystals"]
    ) -> Float[Tensor, " crystals"]:
        return standard * self.prop_std + self.prop_mean


def _scaled_parameters(lattice: Tensor, num_atoms: Tensor) -> Tensor:
    lengths, angles = matrix_to_parameters(lattice)
    return torch.cat([lengths / num_atoms[:, None] ** (1 / 3), angles], -1)
