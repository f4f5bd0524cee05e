"""CHGNet as an ASE calculator: energy in eV, forces in eV/Å, stress in eV/Å3.

Only this folder imports CHGNet and ASE, and only inside functions: they build the embedded
datasets and nothing that runs needs them. CHGNet: Deng et al., Nature Machine Intelligence 5,
1031 (2023), doi:10.1038/s42256-023-00716-3; version 0.3.0 of its weights.

The forces and the stress are taken here in one backward pass without a graph of second
derivatives; CHGNet's own calculator makes two with one, which costs twice the time.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cdvae_core.errors import DatasetError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator
    from chgnet.model import CHGNet

MODEL_NAME = "0.3.0"


def load_model() -> CHGNet:
    """CHGNet v0.3.0 on the CPU, frozen, refusing crystals with isolated atoms.

    Raises:
        DatasetError: CHGNet is not installed.
    """
    try:
        from chgnet.model import CHGNet
    except ImportError as missing:
        raise DatasetError(
            f"CHGNet needs the package {missing.name!r}: "
            'install it with `pip install "cdvae[stability]"`'
        ) from missing
    with contextlib.redirect_stdout(None):  # it announces itself
        model = CHGNet.load(model_name=MODEL_NAME, use_device="cpu", verbose=False)
    model.requires_grad_(False).eval()
    model.graph_converter.set_isolated_atom_response("error")
    return model


def evaluate(model: CHGNet, atoms: Atoms) -> dict[str, float | np.ndarray]:
    """Energy, forces and stress of one crystal.

    Returns:
        `energy` in eV (MP2020-corrected total), `forces` `[atoms, 3]` in eV/Å, `stress` `[6]` in
        eV/Å3 (xx, yy, zz, yz, xz, xy), positive where the cell wants to shrink.
    """
    from ase.stress import full_3x3_to_voigt_6_stress
    from chgnet.model.model import BatchedGraph
    from pymatgen.io.ase import AseAtomsAdaptor

    graph = model.graph_converter(AseAtomsAdaptor.get_structure(atoms))
    batch = BatchedGraph.from_graphs(
        [graph],
        bond_basis_expansion=model.bond_basis_expansion,
        angle_basis_expansion=model.angle_basis_expansion,
        compute_stress=True,
    )
    count = len(atoms)
    interaction = model._compute(batch)["e"][0] * count
    inputs = (batch.atom_positions[0], batch.strains[0])
    position_grad, strain_grad = torch.autograd.grad(interaction, inputs)
    composition = model.composition_model([graph])[0] * count
    stress = strain_grad.numpy().astype(np.float64) / atoms.get_volume()
    energy = float(interaction.detach() + composition)
    return {
        "energy": energy,
        "free_energy": energy,
        "forces": -position_grad.numpy().astype(np.float64),
        "stress": full_3x3_to_voigt_6_stress(stress),
    }


def load_calculator() -> Calculator:
    """An ASE calculator on `evaluate`, on one thread: equal geometries give equal bits.

    Raises:
        DatasetError: CHGNet is not installed.
    """
    model = load_model()
    from ase.calculators.calculator import Calculator, all_changes

    torch.set_num_threads(1)

    class ChgnetCalculator(Calculator):
        implemented_properties = (  # type: ignore[assignment]  # ASE says list
            "energy", "free_energy", "forces", "stress",
        )  # fmt: skip

        def calculate(
            self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            assert self.atoms is not None
            self.results = evaluate(model, self.atoms)

    return ChgnetCalculator()
