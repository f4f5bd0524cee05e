"""Small made-up crystals, as objects and as CIF text."""

from __future__ import annotations

import numpy as np

from cdvae_core.crystal import Crystal

CIF = """data_x
_symmetry_space_group_name_H-M   'P 1'
_cell_length_a   {a}
_cell_length_b   {b}
_cell_length_c   {c}
_cell_angle_alpha   {alpha}
_cell_angle_beta   90
_cell_angle_gamma   90
loop_
 _symmetry_equiv_pos_site_id
 _symmetry_equiv_pos_as_xyz
  1  'x, y, z'
loop_
 _atom_site_type_symbol
 _atom_site_label
 _atom_site_symmetry_multiplicity
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
{atoms}
"""


def cif_text(
    atoms: str = "Cs Cs0 1 0 0 0 1\nCl Cl1 1 0.5 0.5 0.5 1", *, a=4.1, b=4.1, c=4.1, alpha=90
) -> str:
    return CIF.format(a=a, b=b, c=c, alpha=alpha, atoms=atoms)


def random_crystal(rng: np.random.Generator, atoms: int = 4) -> Crystal:
    """A skewed cell with different elements, far enough apart for CrystalNN."""
    lengths = rng.uniform(4.0, 6.0, 3)
    angles = rng.uniform(70, 110, 3)
    corners = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]]) / 2
    coords = corners[np.arange(atoms) % 4] + rng.uniform(-0.08, 0.08, (atoms, 3))
    return Crystal.from_parameters(lengths, angles, coords, 3 + rng.permutation(57)[:atoms])
