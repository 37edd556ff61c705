"""The contract: what a job is (specs, recipes) and what crosses the border to training. pydantic and yaml only."""

from configs.comparison import AnySpec, ComparisonSpec
from configs.errors import ConfigError, RecipeErrors
from configs.load import Campaign, load_file, load_text
from configs.outcome import JobRecord, Launch, Outcome, Progress, RankError, ResolvedSource, SpoolCursor, StopReason
from configs.spec import JobSpec
from configs.version import __version__

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
