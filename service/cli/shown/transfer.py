"""The bar over the bytes of a fetch."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn


@contextlib.contextmanager
def byte_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the bytes of a fetch; silent where the console is no terminal."""
    columns = (TextColumn("{task.fields[file]}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, file="")

        def report(name: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, file=name)

        yield report
