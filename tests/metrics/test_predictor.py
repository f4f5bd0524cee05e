"""The published property networks against predictions made with the published code."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.data.cache import open_split
from cdvae_core.data.registry import DATASETS
from cdvae_core.errors import CheckpointError, ConfigError, StructureError
from cdvae_core.graph import MultiGraph
from cdvae_core.metrics.predictor import FOLDER, About, Predictor, known
from cdvae_core.nn.dimenet import DimeNetPlusPlus

SHARED = Path(os.environ.get("CDVAE_SHARED", Path(__file__).parents[2] / ".." / "shared"))
GOLDEN = SHARED / "golden" / "official_property" / "perovskite.json.gz"


@pytest.fixture(scope="module")
def golden() -> list[dict]:
    if not GOLDEN.exists():
        pytest.skip("the folder of reference predictions is absent (set CDVAE_SHARED)")
    with gzip.open(GOLDEN) as file:
        return json.load(file)["crystals"]


@pytest.fixture(scope="module")
def perovskite() -> Predictor:
    return Predictor.load("perov_5")


def structure(entry: dict) -> Structure:
    cell = entry["niggli"]
    lattice = Lattice.from_parameters(*cell["lengths"], *cell["angles"])
    return Structure(lattice, cell["atomic_numbers"], cell["frac_coords"])


def given_graph(
    entries: list[dict], dtype: torch.dtype = torch.float32
) -> tuple[CrystalBatch, MultiGraph]:
    """The crystals and the edges that came with them, for atoms that are moved into the cell."""
    crystals, parts, first = [], [], 0
    for entry in entries:
        cell = entry["niggli"]
        frac = np.array(cell["frac_coords"])
        crystal = Crystal.from_parameters(
            cell["lengths"], cell["angles"], frac, cell["atomic_numbers"]
        )
        moved = np.rint(frac - crystal.frac_coords).astype(int)
        source, target = np.array(entry["edges"]).T
        image = np.array(entry["images"]) + moved[source] - moved[target]
        order = np.argsort(target, kind="stable")
        parts.append((source[order] + first, target[order] + first, image[order]))
        crystals.append(crystal)
        first += crystal.num_atoms
    arrays = (torch.as_tensor(np.concatenate(p)) for p in zip(*parts, strict=True))
    return CrystalBatch.from_crystals(crystals, dtype), MultiGraph(*arrays)


def predictions(entries: list[dict]) -> np.ndarray:
    return np.array([entry["prediction"] for entry in entries])


def test_agrees_on_given_edges(perovskite: Predictor, golden: list[dict]) -> None:
    result = perovskite.predict_graphs(*given_graph(golden))
    assert result.shape == (len(golden),)
    assert np.abs(result - predictions(golden)).max() < 1e-5


def test_agrees_on_edges_built_here(perovskite: Predictor, golden: list[dict]) -> None:
    few = golden[::8]
    result = perovskite.predict([structure(entry) for entry in few])
    assert np.abs(result - predictions(few)).max() < 1e-5


@pytest.mark.slow
def test_agrees_on_all_edges_built_here(perovskite: Predictor, golden: list[dict]) -> None:
    result = perovskite.predict([structure(entry) for entry in golden])
    assert np.abs(result - predictions(golden)).max() < 1e-5
    targets = np.array([entry["target"] for entry in golden])
    assert np.abs(result - targets).mean() == pytest.approx(0.04174486, abs=1e-6)


def test_double_precision_agrees(perovskite: Predictor, golden: list[dict]) -> None:
    crystals, graph = given_graph(golden[:20], torch.float64)
    double = Predictor(perovskite.encoder.double(), perovskite.about)
    try:
        result = double.predict_graphs(crystals, graph)
    finally:
        perovskite.encoder.float()
    assert np.abs(result - predictions(golden[:20])).max() < 1e-5


def moved(
    crystals: CrystalBatch, graph: MultiGraph, rng: np.random.Generator
) -> tuple[CrystalBatch, MultiGraph]:
    """Each crystal turned, shifted and its atoms permuted, with the same bonds."""
    after, new_place, shift, first = [], [], [], 0
    for crystal in crystals.to_crystals():
        order = rng.permutation(crystal.num_atoms)
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        frac = crystal.frac_coords[order] + rng.random(3)
        other = Crystal(crystal.atomic_numbers[order], frac, crystal.lattice @ turn)
        place = np.argsort(order)
        new_place.append(place + first)
        shift.append(np.rint(frac - other.frac_coords)[place])
        after.append(other)
        first += crystal.num_atoms
    place = torch.as_tensor(np.concatenate(new_place))
    cells = torch.as_tensor(np.concatenate(shift)).long()
    image = graph.image + cells[graph.source] - cells[graph.target]
    order = torch.argsort(place[graph.target])
    source, target = place[graph.source][order], place[graph.target][order]
    return (
        CrystalBatch.from_crystals(after, crystals.lattice.dtype),
        MultiGraph(source, target, image[order]),
    )


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)], ids=str
)
def test_trained_weights_are_invariant_on_real_crystals(
    perovskite: Predictor, golden: list[dict], dtype: torch.dtype, tolerance: float
) -> None:
    crystals, graph = given_graph(golden, dtype)
    encoder = DimeNetPlusPlus(out_dim=1)
    encoder.load_state_dict(perovskite.encoder.state_dict())
    encoder.to(dtype)
    with torch.no_grad():
        expected = encoder(crystals, graph)
        result = encoder(*moved(crystals, graph, np.random.default_rng(0)))
    assert (result - expected).abs().max() < tolerance * expected.std()


def test_sharing_equal_edges_changes_nothing(perovskite: Predictor, golden: list[dict]) -> None:
    crystals, graph = given_graph(golden)
    shared = perovskite.encoder(crystals, graph)
    crystals.frac_coords.requires_grad_()  # each edge by itself
    assert (perovskite.encoder(crystals, graph) - shared).abs().max() < 1e-5


def test_diamond_and_rock_salt_have_plausible_energies() -> None:
    """Published energies: diamond near -154.5 eV/atom in Carbon-24's reference, NaCl near -2.1."""
    diamond = Structure(
        Lattice.from_parameters(2.527, 2.527, 2.527, 60, 60, 60), "CC", [[0, 0, 0], [0.25] * 3]
    )
    salt = Structure(
        Lattice.from_parameters(4.02, 4.02, 4.02, 60, 60, 60), ["Na", "Cl"], [[0] * 3, [0.5] * 3]
    )
    assert Predictor.load("carbon_24").predict([diamond])[0] == pytest.approx(-154.5, abs=0.2)
    assert Predictor.load("mp_20").predict([salt])[0] == pytest.approx(-2.1, abs=0.2)


def test_no_structures(perovskite: Predictor) -> None:
    assert perovskite.predict([]).shape == (0,)


def test_a_structure_without_prediction_is_named(perovskite: Predictor) -> None:
    good = Structure(Lattice.cubic(4), ["Sr", "Ti"], [[0] * 3, [0.5] * 3])
    bad = Structure(Lattice.cubic(4), [{"Sr": 0.5}], [[0] * 3])
    with pytest.raises(StructureError, match="structure 1 "):
        perovskite.predict([good, bad])


def test_every_dataset_has_a_network_for_its_property() -> None:
    assert known() == sorted(DATASETS)
    for name in known():
        about = Predictor.load(name).about
        assert about.prop == DATASETS[name].default_property
        assert about.unit == DATASETS[name].properties[about.prop]
        assert about.source


@pytest.mark.parametrize("dataset", ["perov_like", "mp_like"])
def test_the_own_networks_know_their_data(dataset: str) -> None:
    """Far better than the mean, and about as good as their source says."""
    predictor = Predictor.load(dataset)
    split = open_split(dataset, "test")
    batch = split.batch(range(200), predictor.about.prop)
    off = np.abs(predictor.predict_graphs(batch.crystals, batch.graph) - batch.prop.numpy())
    assert off.mean() < 0.2 * predictor.about.std


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="there are carbon_24, mp_20, mp_like, perov_5"):
        Predictor.load("oxide")


def test_a_network_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = {"hidden": 8, "blocks": 1, "int_emb": 4, "out_emb": 8}
    about = About("energy", "eV/atom", 1.5, 2.0, network, "made up")
    first = Predictor(DimeNetPlusPlus(out_dim=1, **network), about)
    for weights in first.encoder.parameters():
        torch.nn.init.normal_(weights, std=0.2)
    first.save(tmp_path / "toy.safetensors")
    again = Predictor.load("toy", tmp_path)
    salt = [Structure(Lattice.cubic(4), ["Na", "Cl"], [[0] * 3, [0.5] * 3])]
    assert again.about == about
    assert again.predict(salt) == first.predict(salt)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    whole = (FOLDER / "mp_20.safetensors").read_bytes()
    for content in (whole[:-8], b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "):
        (tmp_path / "mp_20.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged"):
            Predictor.load("mp_20", tmp_path)
