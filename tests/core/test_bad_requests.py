"""Bad requests are named errors with the value in them, said before anything is computed.

They run in a process without the tests' type checker, which would notice many of them first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SAYS = {
    "unknown schedule": ("ConfigError", "'slow'"),
    "empty schedule": ("ConfigError", "schedule"),
    "too few num_atoms": ("ConfigError", "1 numbers of atoms were given for 2"),
    "no atoms": ("ConfigError", "num_atoms 0 is below 1"),
    "too many atoms": ("ConfigError", "num_atoms 37 exceeds the checkpoint's 20"),
    "types without num_atoms": ("ConfigError", "needs num_atoms"),
    "too few types": ("ConfigError", "2 types were given for 3 atoms"),
    "type 101": ("ConfigError", "101"),
    "type 0": ("ConfigError", "0"),
    "one lattice for two": ("ConfigError", "lattice"),
    "lattice of NaN": ("ConfigError", "lattice"),
    "lattice without volume": ("ConfigError", "lattice"),
    "z of another width": ("ConfigError", "z is [2, 8]"),
    "z of one axis": ("ConfigError", "z is [16]"),
    "z of NaN": ("ConfigError", "z holds a value that is not finite"),
    "latent_dim wide": ("CheckpointError", "'wide'"),
    "latent_dim -4": ("CheckpointError", "latent_dim is -4"),
    "unknown key": ("CheckpointError", "unknown key 'layers'"),
    "no decoder": ("CheckpointError", "'decoder'"),
    "hidden 0": ("CheckpointError", "hidden"),
    "no model": ("CheckpointError", "config.json"),
    "foreign scalers": ("CheckpointError", "mean"),
    "no scalers": ("CheckpointError", "config.json"),
    "two lattice means": ("CheckpointError", "lattice_mean"),
    "words for deviations": ("CheckpointError", "lattice_std"),
    "no prop_mean": ("CheckpointError", "prop_mean"),
    "prop_std NaN": ("CheckpointError", "prop_std"),
    "other elements": ("CheckpointError", "element"),
    "gradient": ("False", ""),
}


@pytest.fixture(scope="module")
def answers() -> dict[str, list[str]]:
    script = Path(__file__).with_name("bad_requests.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("request_", SAYS)
def test_bad_request(answers: dict[str, list[str]], request_: str) -> None:
    kind, message = answers[request_]
    expected, words = SAYS[request_]
    assert (kind, words in message) == (expected, True), f"{kind}: {message}"


def test_every_answer_is_expected(answers: dict[str, list[str]]) -> None:
    assert answers.keys() == SAYS.keys()
