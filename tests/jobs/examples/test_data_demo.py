"""The data of the demonstration: real, the same every time, and clean."""

from pathlib import Path

import pytest

pytest.importorskip("babel", reason="needs the extra 'demo'")

from transformers import AutoConfig, AutoTokenizer

from prunus.jobs.examples import text as demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "new"
    assert demo.main([str(path)]) == 0
    return path


def _names(folder: Path, split: str) -> list[list[str]]:
    header, *rows = (folder / f"names-{split}.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "text\tlabel"
    return [row.split("\t") for row in rows]


def test_names_are_many_balanced_and_never_in_both_splits(folder: Path) -> None:
    train, held_out = _names(folder, "train"), _names(folder, "eval")
    assert len(train) > 3000 and len(held_out) > 700
    assert all(len(row) == 2 for row in train + held_out)
    texts = [text for text, _ in train + held_out]
    assert len(set(texts)) == len(texts)
    for rows in (train, held_out):
        counts = [sum(label == wanted for _, label in rows) for wanted in ("territory", "language", "currency", "unit")]
        assert sum(counts) == len(rows)
        assert max(counts) < 1.5 * min(counts)
    known = dict(train + held_out)
    assert {name: known.get(name) for name in ("germany", "nanometers", "swedish", "russischer rubel")} == {
        "germany": "territory",
        "nanometers": "unit",
        "swedish": "language",
        "russischer rubel": "currency",
    }


def test_docs_are_prose_and_split_by_paragraph(folder: Path) -> None:
    train, held_out = ((folder / f"docs-{split}.txt").read_text("utf-8").splitlines() for split in ("train", "eval"))
    assert not set(train) & set(held_out)
    assert len(train) > 700 and 0.05 < len(held_out) / (len(train) + len(held_out)) < 0.16
    assert not any(">>>" in line or "::=" in line for line in train + held_out)


def test_the_same_bytes_every_time(folder: Path, tmp_path: Path) -> None:
    demo.write(tmp_path)
    for path in tmp_path.glob("*.t*"):
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_the_model_is_a_bert_with_its_tokenizer(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder / "model")
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("bert", 6, 384)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert tokenizer("the")["input_ids"] == [101, 1996, 102]
    assert (folder / "model" / "model.safetensors").stat().st_size > 80e6


def test_a_line_per_file_with_counts(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert demo.main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].rsplit("/", 1)[1] for line in lines] == [
        "docs-train.txt", "docs-eval.txt", "names-train.tsv", "names-eval.tsv", "model",
    ]  # fmt: skip
    assert all(any(map(str.isdigit, line.split(":", 1)[1])) for line in lines)


def test_wrong_usage_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([]) == 2
    assert "usage" in capsys.readouterr().err
