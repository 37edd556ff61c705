"""What can be wrong with what a person wrote, and with the files that a job left.

ConfigError            a recipe, an override or a reference that cannot be used (never retryable)
└── RecipeErrors       several of them, found in one reading of one file
ArtifactError          files of a job that cannot be used (never retryable)
├── ArtifactMissing    there is no such file or directory
├── ArtifactRefused    it is of another kind, or may not be read or written
└── Damaged            bytes differ from their manifest, or are not whole: do not use it

The message of a ``ConfigError`` has the shape ``file:line: path: what, got VALUE; remedy``.
"""

from collections.abc import Sequence


class ConfigError(ValueError):
    """One mistake in a recipe.

    Args:
        what: What is wrong, in one sentence, with the value that was read.
        path: Dotted path inside the file, for example ``jobs[1].method.final_sparsity``.
        file: The file's name, or ``<string>``.
        line: 1-based line in that file, or None where no line can be named.
        remedy: What to write instead.
    """

    retryable = False

    def __init__(self, what: str, *, path: str = "", file: str = "", line: int | None = None, remedy: str = "") -> None:
        super().__init__(what, path, file, line, remedy)
        self.what, self.path, self.file, self.line, self.remedy = what, path, file, line, remedy

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.path, self.file, self.line, self.remedy)

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        head = ": ".join(part for part in (where, self.path, self.what) if part)
        return f"{head}; {self.remedy}" if self.remedy else head


class RecipeErrors(ConfigError):
    """All mistakes of one file, so that a user mends them in one go."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))

    def __reduce__(self) -> tuple[object, ...]:
        return RecipeErrors, (self.errors,)


class ArtifactError(Exception):
    """Files of a job cannot be used; the message says which, why and what to do."""

    retryable = False


class ArtifactMissing(ArtifactError):
    """What was asked for is not there."""


class ArtifactRefused(ArtifactError):
    """The request cannot be met as it stands."""


class Damaged(ArtifactError):
    """Bytes differ from the digest in their manifest, or a file is not whole."""


def _rebuild(kind: type[ConfigError], what: str, path: str, file: str, line: int | None, remedy: str) -> ConfigError:
    return kind(what, path=path, file=file, line=line, remedy=remedy)
