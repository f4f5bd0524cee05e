"""Experiments from YAML: every one in the package, and every way to get one wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cdvae_core.baseline_configs import SYSTEMS
from cdvae_core.config import ModelConfig, from_dict, to_dict
from cdvae_core.data.registry import DATASETS
from cdvae_core.errors import ConfigError
from cdvae_core.experiment import BaselineExperiment, Experiment, Recipe, names, read

EXPERIMENTS = ("perov_5", "carbon_24", "mp_20", "perov_like", "mp_like")


CDVAES = [name for name in names() if name.removesuffix("_small") in EXPERIMENTS]


def test_every_dataset_has_its_two_experiments() -> None:
    assert set(CDVAES) == {n + s for n in EXPERIMENTS for s in ("", "_small")}


def test_every_system_has_experiments_that_fit_their_data() -> None:
    baselines = {name: read(name) for name in names() if name not in CDVAES}
    assert {experiment.system for experiment in baselines.values()} == set(SYSTEMS)
    for name, experiment in baselines.items():
        assert isinstance(experiment, BaselineExperiment)
        assert name.removesuffix("_small") == f"{experiment.system}_{experiment.dataset}"
        spec = DATASETS[experiment.dataset]
        assert experiment.model.max_atoms >= spec.max_atoms
        assert experiment.model.prop in (None, *spec.properties)


def test_an_unknown_system_is_named(tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text("system: diffcsp\ndataset: perov_5\n")
    with pytest.raises(ConfigError, match="no system is called 'diffcsp'; there are ftcp"):
        read(str(file))


def test_a_section_that_a_system_lacks_is_named_with_those_it_has() -> None:
    with pytest.raises(ConfigError, match="'losses'; known here: dataset, model, recipe, system"):
        read("ftcp_perov_like", ["losses.kl=1"])


@pytest.mark.parametrize("name", CDVAES)
def test_experiments_in_the_package(name: str) -> None:
    experiment = read(name)
    spec = DATASETS[experiment.dataset]
    assert experiment.dataset == name.removesuffix("_small")
    assert experiment.model.prop in spec.properties
    assert experiment.model.max_atoms >= spec.max_atoms
    if not name.endswith("_small"):
        published = ModelConfig(prop=experiment.model.prop, max_atoms=experiment.model.max_atoms)
        assert experiment.model == published


@pytest.mark.parametrize("name", names())
def test_what_is_printed_reads_as_the_same(name: str, tmp_path: Path) -> None:
    file = tmp_path / "printed.yaml"
    file.write_text(yaml.safe_dump(to_dict(read(name)), sort_keys=False))
    assert read(str(file)) == read(name)


def test_overrides() -> None:
    changed = read(
        "perov_5",
        [
            "recipe.epochs=7",
            "recipe.learning_rate=0.01",
            "model.prop=null",
            "model.decoder.quadruplets=true",
            "dataset=my crystals",
            "losses.kl=1",
        ],
    )
    assert changed.recipe.epochs == 7 and changed.recipe.learning_rate == 0.01
    assert changed.model.prop is None and changed.model.decoder.quadruplets is True
    assert changed.dataset == "my crystals"
    assert changed.losses.kl == 1.0 and isinstance(changed.losses.kl, float)
    assert read("perov_5").recipe.epochs != 7


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001"])
def test_a_number_may_be_written_as_people_write_it(text: str) -> None:
    assert read("perov_5", [f"recipe.learning_rate={text}"]).recipe.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("recipe.epoch=3", "unknown key 'recipe.epoch'.*epochs"),
        ("model.decoder.hiden=3", "unknown key 'model.decoder.hiden'"),
        ("optimiser.lr=3", "unknown key 'optimiser'"),
        ("recipe.epochs=many", "'recipe.epochs' is 'many'"),
        ("recipe.epochs=3.5", "'recipe.epochs' is 3.5"),
        ("recipe.epochs=true", "'recipe.epochs' is True"),
        ("recipe.epochs=null", "'recipe.epochs' is None"),
        ("recipe.learning_rate=fast", "'recipe.learning_rate' is 'fast'"),
        ("model.decoder.quadruplets=1", "'model.decoder.quadruplets' is 1"),
        ("model.decoder=3", "'model.decoder' is 3.*section"),
        ("model=null", "'model' is None.*section"),
        ("dataset.name=3", "'dataset' is no section"),
        ("recipe.epochs", "no override"),
        ("=3", "no override"),
        ("recipe.epochs=[", r"recipe.epochs=\["),
        ("recipe.batch_size=100", "100 is no multiple"),
        ("recipe.micro_batch=0", "micro_batch"),
        ("recipe.epochs=-3", "epochs"),
        ("recipe.noise_draws=0", "noise_draws"),
        ("recipe.learning_rate=-0.1", "learning_rate"),
        ("recipe.validate_every=0", "validate_every"),
        ("recipe.ema_decay=1.5", "ema_decay"),
        ("model.latent_dim=0", "latent_dim is 0"),
        ("model.max_atoms=-1", "max_atoms is -1"),
        ("model.decoder.neighbours=0", "neighbours is 0"),
        ("model.decoder.neighbours=1000", "neighbours is 1000"),
        ("model.decoder.hidden=0", "hidden"),
        ("model.decoder.cutoff=0", "cutoff"),
        ("model.encoder.blocks=-1", "blocks"),
        ("model.noise.levels=0", "levels"),
        ("model.noise.sigma_last=0", "sigma_last"),
    ],
)
def test_wrong_overrides(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read("perov_like_small", [override])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no keys"),
        ("- 1\n- 2", "no keys"),
        ("dataset: [", "no valid YAML"),
        ("recipe: {epochs: 3}", "names no dataset"),
        ("dataset: perov_5\nepochs: 3", "unknown key 'epochs'"),
        ("dataset: 5", "'dataset' is 5"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read(str(file))


def test_no_such_experiment(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no experiment 'perov'.*perov_5"):
        read("perov")
    with pytest.raises(ConfigError, match="no experiment"):
        read(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError):
        read(str(tmp_path))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xff\xfe\x00dataset")
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        read(str(file))


def test_dictionaries_round_trip() -> None:
    config = ModelConfig(prop="gap", max_atoms=7)
    assert from_dict(ModelConfig, to_dict(config)) == config
    assert from_dict(Experiment, {"dataset": "x"}) == Experiment("x")
    assert from_dict(Recipe, {}) == Recipe()
