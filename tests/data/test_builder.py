"""From files to an opened split, through the library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toys import cif_text, random_crystal

from cdvae_core.crystal import Crystal
from cdvae_core.data.builder import build
from cdvae_core.data.cache import open_split, read_split
from cdvae_core.data.describe import describe
from cdvae_core.data.format import SplitInfo
from cdvae_core.data.registry import DATASETS, cache_root, dataset_spec, user_datasets
from cdvae_core.errors import DatasetError
from cdvae_core.structures import to_cif


def run(name: Path | str, **options: object) -> dict[str, SplitInfo]:
    return {info.split: info for info in build(str(name), progress=False, **options)}


@pytest.fixture
def own_csv(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [f'x{i},"{to_cif(random_crystal(rng, 2))}",{i}.5' for i in range(12)]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["id,cif,gap", *rows, 'bad,"",1']))
    return path


def test_the_users_own(own_csv: Path, cache: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset 'own'"):
        open_split("own", "train")
    infos = run(own_csv)
    assert [len(open_split("own", s)) for s in infos] == [
        11 - len(infos["train"].skipped), 1 - len(infos["test"].skipped), 1,
    ]  # fmt: skip
    skipped = [s for info in infos.values() for s in info.skipped]
    assert [s.id for s in skipped] == ["bad"]
    spec = dataset_spec("own")
    assert (spec.default_property, spec.source) == ("gap", str(own_csv))
    assert open_split(str(own_csv), "train").fingerprint == infos["train"].fingerprint
    assert run("own") == infos  # by its name, nothing to do
    assert set(user_datasets()) == {"own"}
    text = describe("own")
    assert "gap: " in text and "skipped bad: the `cif` column is empty" in text


def test_names_that_clash(own_csv: Path, cache: Path, tmp_path: Path) -> None:
    run(own_csv)
    other = tmp_path / "deep" / "own.csv"
    other.parent.mkdir()
    other.write_bytes(own_csv.read_bytes())
    with pytest.raises(DatasetError, match="there is a dataset 'own' already"):
        run(other)
    known = tmp_path / "mp_20.csv"
    known.write_bytes(own_csv.read_bytes())
    with pytest.raises(DatasetError, match="'mp_20' is the name of a known dataset"):
        run(known)


def test_nothing_usable_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "bad.csv").write_text(f'id,cif\na,"{cif_text(c=0)}"\nb,hello\n')
    with pytest.raises(DatasetError, match="none of the 2 crystals of bad train is usable: a: "):
        run(tmp_path / "bad.csv")
    assert user_datasets() == {}
    assert not list((cache / "prepared").iterdir())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere.csv", {}, "'nowhere.csv' is neither a dataset .* nor a file or folder"),
        ("carbon_24", {}, "run `cdvae data fetch carbon_24` first"),
        ("carbon_24", {"limit": 0}, "limit is 0"),
    ],
)
def test_what_cannot_be_built(cache: Path, name: str, options: dict, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        run(name, **options)


def test_limits_are_noted(own_csv: Path, cache: Path) -> None:
    assert run(own_csv, limit=2)["train"].notes == ("only the first 2 of 11 rows of train",)
    assert len(open_split("own", "train")) == 2


def test_a_damaged_description_is_named(own_csv: Path, cache: Path) -> None:
    run(own_csv, limit=1)
    (cache / "prepared" / "own.json").write_text("{")
    with pytest.raises(DatasetError, match=r"own.json is damaged .* delete it"):
        dataset_spec("own")


def test_an_embedded_set_is_made_then_prepared(tmp_path: Path, cache: Path, monkeypatch) -> None:
    from cdvae_core.data.embedded import build as recipes

    def make(name: str, out: Path, **_: object) -> Path:
        rng = np.random.default_rng(0)
        crystals = [random_crystal(rng, 3) for _ in range(6)]
        rows = [
            {
                "id": f"{name}-{i}", "split": ("train", "val", "test")[i % 3],
                "formula": c.formula, "numbers": c.atomic_numbers.tolist(),
                "lengths": c.lengths.tolist(), "angles": c.angles.tolist(),
                "frac_coords": c.frac_coords.ravel().tolist(),
                "formation_energy_per_atom": -1.0 - i,
            }
            for i, c in enumerate(crystals)
        ]  # fmt: skip
        out.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), out / f"{name}.parquet")
        return out / f"{name}.parquet"

    monkeypatch.setattr(recipes, "build", make)
    infos = run("perov_like", out=tmp_path / "out")
    split = read_split(tmp_path / "out" / "perov_like-val.safetensors")
    assert split.ids == ["perov_like-1", "perov_like-4"]
    np.testing.assert_array_equal(split.properties["formation_energy_per_atom"], [-2, -5])
    assert set(infos) == {"train", "val", "test"}


@pytest.mark.parametrize("name", [n for n, spec in DATASETS.items() if spec.embedded])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_shipped_sets_open_at_once(name: str, split: str, cache: Path) -> None:
    from cdvae_core.data.cache import find_split

    if find_split(name, split) is None:
        pytest.skip(f"{name} has not been built yet")
    data = open_split(name, split)
    spec = DATASETS[name]
    assert len(data) > 100
    assert data.num_atoms.max() <= spec.max_atoms
    assert np.isfinite(data.properties[spec.default_property]).all()
    assert isinstance(data.crystal(0), Crystal)
    batch = data.batch(np.arange(64), spec.default_property)
    distance = batch.graph.vectors(batch.crystals).norm(dim=-1)
    assert distance.min() > 0.5 and distance.max() < 8


def test_cache_root(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CDVAE_DATA", str(tmp_path))
    assert cache_root() == tmp_path
    assert cache_root(tmp_path / "x") == tmp_path / "x"
    monkeypatch.delenv("CDVAE_DATA")
    assert cache_root().name == "cdvae"
