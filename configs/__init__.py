"""The contract: what a job is (specs, recipes) and what crosses the border to training. pydantic and yaml only."""

from prunus.configs.errors import ConfigError, RecipeErrors
from prunus.configs.reading.load import load_file, load_text
from prunus.configs.records.launch import Launch, ResolvedSource
from prunus.configs.records.outcome import JobRecord, Outcome, RankError, StopReason
from prunus.configs.records.progress import Progress, SpoolCursor
from prunus.configs.specs.campaign import Campaign
from prunus.configs.specs.comparison import ComparisonSpec
from prunus.configs.specs.job import JobSpec
from prunus.configs.specs.union import AnySpec
from prunus.configs.version import __version__

__all__ = [
    "AnySpec",
    "Campaign",
    "ComparisonSpec",
    "ConfigError",
    "JobRecord",
    "JobSpec",
    "Launch",
    "Outcome",
    "Progress",
    "RankError",
    "RecipeErrors",
    "ResolvedSource",
    "SpoolCursor",
    "StopReason",
    "__version__",
    "load_file",
    "load_text",
]
