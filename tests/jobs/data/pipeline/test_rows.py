"""Rows of files of every form, and what is said when they cannot be read."""

import gzip
import json
import socket
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prunus.configs.tasks.data_source import DataSource
from prunus.jobs.data.pipeline.rows import find_rows
from prunus.jobs.errors import DataError

ROWS = [{"text": "x, y", "label": "1"}, {"text": "z \u00fc", "label": "2"}]


def _read(columns: tuple[str, ...], *files: Path, header: bool = True) -> list[dict]:
    return list(find_rows(DataSource(files=tuple(map(str, files)), header=header), "task.data.train").read(columns))


def _write(path: Path) -> Path:
    form = path.name.split(".")[1]
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    text = {
        "txt": "x, y\nz ü\n",
        "jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
        "csv": 'text,label\n"x, y",1\nz ü,2\n',
        "tsv": "text\tlabel\nx, y\t1\nz ü\t2\n",
    }[form]
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz", "a.csv.gz", "a.tsv.gz"])
def test_every_form_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert _read(("text", "label"), _write(tmp_path / name)) == ROWS


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_text_is_a_row_per_line(tmp_path: Path, name: str) -> None:
    assert _read(("text",), _write(tmp_path / name)) == [{"text": "x, y"}, {"text": "z ü"}]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufefftext,label\na,1\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("\ufeffa\n", encoding="utf-8")
    assert _read(("text",), tmp_path / "a.csv") == _read(("text",), tmp_path / "a.txt") == [{"text": "a"}]


def test_without_a_header_columns_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("one\t1\ntwo\t2\n")
    rows = _read(("0", "1"), tmp_path / "a.tsv", header=False)
    assert rows == [{"0": "one", "1": "1"}, {"0": "two", "1": "2"}]


def test_globs_are_read_in_order_of_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b", "c", "a"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    assert [row["text"] for row in _read(("text",), tmp_path / "*.txt")] == ["a", "b", "c"]
    monkeypatch.chdir(tmp_path)
    assert [row["text"] for row in _read(("text",), Path("?.txt"))] == ["a", "b", "c"]


def test_a_name_with_glob_characters_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("x\n")
    assert _read(("text",), tmp_path / "a[1].txt") == [{"text": "x"}]


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text("x\n")
    b.write_text("x\n")

    def fingerprint(*files: Path) -> str:
        return find_rows(DataSource(files=tuple(map(str, files))), "task.data.train").fingerprint()

    assert fingerprint(a) == fingerprint(b) != fingerprint(a, b)
    b.write_text("y\n")
    assert fingerprint(a) != fingerprint(b)


def test_local_files_are_read_without_asking_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def resolve(*where: object, **_kwargs: object) -> None:
        asked.append(where)
        raise OSError("no network")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert _read(("text", "label"), _write(tmp_path / "a.csv")) == ROWS
    assert asked == []


def _fails(match: str, *files: Path | str) -> None:
    with pytest.raises(DataError, match=match):
        _read(("text",), *map(Path, files))


def test_a_missing_file_is_named_with_the_place_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _fails(rf"task\.data\.train\.files: 'no\.txt' \(looked for at {tmp_path}/no\.txt\) does not exist", "no.txt")


def test_a_glob_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    _fails(r"'.*\*\.txt'.* matches no file", tmp_path / "*.txt")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    _fails("is a directory; give its files", tmp_path)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    _fails(r"is empty|holds no rows", tmp_path / name)


def test_a_header_alone_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("text\tlabel\n")
    _fails("holds no rows", tmp_path / "a.tsv")


def test_an_unknown_column_lists_the_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence,label\na,1\n")
    _fails(r"has no column 'text'; it has 'sentence', 'label'", tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv"])
def test_bytes_that_are_not_utf8_are_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"text\tlabel\ncaf\xe9\t1\n" if name != "a.csv" else b"text,label\ncaf\xe9,1\n")
    _fails("is not UTF-8", tmp_path / name)


def test_a_broken_json_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": \n')
    _fails(r"a\.jsonl\): cannot be read", tmp_path / "a.jsonl")


def test_a_cut_archive_is_an_error(tmp_path: Path) -> None:
    whole = gzip.compress(b"some text\n" * 1000)
    (tmp_path / "a.txt.gz").write_bytes(whole[: len(whole) // 2])
    _fails("cannot be read", tmp_path / "a.txt.gz")


def test_what_is_no_parquet_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"not parquet at all")
    _fails("cannot be read", tmp_path / "a.parquet")


def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("x")
    _fails(r"cannot tell the form of .*a\.xml.*\.jsonl", tmp_path / "a.xml")


def test_forms_are_not_mixed(tmp_path: Path) -> None:
    _fails("mixes json, text files", _write(tmp_path / "a.txt"), _write(tmp_path / "b.jsonl"))


def test_a_header_that_repeats_a_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,1\n2,3\n")
    _fails("names a column twice", tmp_path / "a.csv")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_out_of_reach_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    def unreachable(*_args: object, **_kwargs: object) -> None:
        raise ConnectionError("Couldn't reach 'some/data' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setattr(datasets, "load_dataset_builder", unreachable)
    rows = find_rows(DataSource(hub="some/data", split="test"), "task.data.eval", streaming=streaming)
    for call in (rows.fingerprint, rows.open):
        with pytest.raises(DataError, match=r"task\.data\.eval \(hub data set some/data, split test\).*local files"):
            call()


def test_class_numbers_of_a_hub_data_set_become_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features({"label": datasets.ClassLabel(names=["neg", "pos"])})
    held = datasets.Dataset.from_dict({"label": [1, 0]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_args, **_kwargs: held)
    rows = find_rows(DataSource(hub="some/data"), "task.data.train")
    assert rows.class_names("label") == ("neg", "pos")
    assert [row["label"] for row in rows.read(("label",))] == [1, 0]
