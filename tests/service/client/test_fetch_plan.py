"""Where every file of an artifact goes."""

import pytest

from prunus.configs.errors import Damaged
from prunus.service.client.fetch_plan import plan
from prunus.service.wire import FileView


@pytest.mark.parametrize(
    "names",
    [
        ("model/a", "a"),
        ("model/A", "a"),
        ("model/manifest.json",),
        ("a", "a.part"),
        ("a", "a/b"),
        (".prunus-fetch.json",),
    ],
)
def test_two_files_with_one_path_are_refused(names: tuple[str, ...]) -> None:
    files = [FileView(path=name, size=1, sha256="0" * 64) for name in names]
    with pytest.raises(Damaged):
        plan(files)
