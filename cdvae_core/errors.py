"""The errors a person can cause. Each message is one sentence with the value and the way out."""

from __future__ import annotations


class CdvaeError(ValueError):
    """Base of every error that comes from bad input rather than from a defect."""


class StructureError(CdvaeError):
    """A crystal that cannot be: no atoms, no volume, an unknown element, NaN coordinates."""


class DatasetError(CdvaeError):
    """A dataset that is missing, damaged or of another layout than expected."""


class CheckpointError(CdvaeError):
    """A checkpoint folder that is missing, damaged, foreign or of another version."""


class OutputError(CdvaeError):
    """A file or folder that cannot be written."""


class ConfigError(CdvaeError):
    """A configuration with an unknown key or an impossible value."""


class TrainingError(CdvaeError):
    """A training run that cannot go on, such as one whose batches stay non-finite."""
