"""The two fingerprints by which coverage compares crystals (G.2), made by matminer.

Structure: order parameters of CrystalNN's neighbours, averaged over sites (61 numbers).
Composition: Magpie's element properties (132 numbers), scaled by the published constants.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
from matminer.featurizers.composition import ElementProperty
from matminer.featurizers.site import CrystalNNFingerprint
from pymatgen.core import Composition, Structure

from cdvae_core.crystal import SYMBOLS, Crystal
from cdvae_core.errors import StructureError


@lru_cache(maxsize=1)
def _structure_featurizer() -> CrystalNNFingerprint:
    return CrystalNNFingerprint.from_preset("ops")


@lru_cache(maxsize=1)
def _composition_featurizer() -> ElementProperty:
    return ElementProperty.from_preset("magpie", impute_nan=False)  # NaN is scaled to 0 instead


def structure_fingerprint(structure: Structure) -> np.ndarray:
    """`[61]`.

    Raises:
        StructureError: CrystalNN fails; the published code then counts the crystal as invalid.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sites = [_structure_featurizer().featurize(structure, i) for i in range(len(structure))]
        except Exception as error:  # geometry at large: Qhull, zero weights, missing radii
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise StructureError(f"CrystalNN fails: {why}") from error
    return np.asarray(sites, dtype=float).mean(0)


def composition_fingerprint(crystal: Crystal) -> np.ndarray:
    """`[132]`, not scaled; NaN where Magpie lacks a property of an element."""
    counts = Counter(SYMBOLS[z] for z in crystal.atomic_numbers.tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(_composition_featurizer().featurize(Composition(counts)), dtype=float)


def scaled(composition: np.ndarray) -> np.ndarray:
    """Composition fingerprints `[..., 132]` by the published means and deviations, NaN as 0."""
    constants = _scaling()
    return np.nan_to_num((composition - constants["mean"]) / constants["std"], nan=0.0)


@lru_cache(maxsize=1)
def _scaling() -> dict[str, np.ndarray]:
    text = (Path(__file__).parent / "magpie_scaling.json").read_text(encoding="utf-8")
    return {key: np.array(value) for key, value in json.loads(text).items() if key != "source"}
