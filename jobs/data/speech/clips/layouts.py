"""Which clips a source names, with their transcripts: Common Voice, LibriSpeech, MLS, manifests, plain audio, the hub.

Opens no audio. A row that names no clip or has the wrong number of columns is not an error of its own: it becomes a
clip with a fault that gives its line number, and is counted with the corrupt ones. Names do not depend on the machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from prunus.configs.tasks.speech_data import SpeechSource
from prunus.configs.values.wording import listed
from prunus.jobs.data.speech.clips.audio import AUDIO_SUFFIXES, Audio, BadAudio
from prunus.jobs.data.speech.clips.manifests import MANIFEST_SUFFIXES, header_of, read_rows
from prunus.jobs.errors import DataError

AUDIO_COLUMNS = ("path", "audio_filepath", "audio", "file", "file_name")
TEXT_COLUMNS = ("sentence", "text", "transcript", "transcription")
_LIBRISPEECH = ".trans.txt"
_MLS = "transcripts.txt"


@dataclass(frozen=True)
class Clip:
    """One recording.

    Attributes:
        name: As the source calls it; the same on every machine.
        text: Its transcript as written; None where the layout has none.
        audio: File, or row of a hub data set; None with a fault.
        fault: Why it cannot be used, as far as its row tells.
    """

    name: str
    text: str | None
    audio: Path | int | None
    fault: str = ""


@dataclass(frozen=True)
class ClipList:
    """All clips of a source, in its order.

    Attributes:
        name: The source in words, for messages.
        rows: A hub data set whose audio column is not decoded.
        audio_column: Its name.
        revision: Stands for the content of ``rows``.
    """

    name: str
    clips: list[Clip]
    rows: Any = None
    audio_column: str = ""
    revision: str = ""

    def open(self, clip: Clip) -> Audio:
        """Return the clip's file, or its bytes.

        Raises:
            BadAudio: Its row holds neither.
        """
        assert clip.audio is not None
        if isinstance(clip.audio, Path):
            return clip.audio
        audio = audio_of(self.rows[clip.audio][self.audio_column])
        if audio is None:
            raise BadAudio("its row names no audio")
        return audio


def audio_of(value: Any) -> Audio | None:
    """Return the file or the bytes that the audio column of a hub data set holds in a row; None if it holds none."""
    if not isinstance(value, dict):
        return Path(value) if isinstance(value, str) and value else None
    held: bytes | None = value.get("bytes")
    if held is not None:
        return held
    return Path(value["path"]) if value.get("path") else None


def find_clips(source: SpeechSource, where: str, *, transcribed: bool = True) -> ClipList:
    """Return the clips of a source of local files.

    Args:
        source: What the spec says.
        where: Its place in the spec, for messages.
        transcribed: Whether transcripts are needed.

    Raises:
        DataError: A file is missing, its layout cannot be told, or it names no clip.
    """
    paths = [path for pattern in source.files for path in _expand(pattern, where)]
    name = f"{where} ({listed(paths)})"
    layouts = {_layout(path, source, where) for path in paths}
    if len(layouts) > 1:
        raise DataError(f"{name}: mixes the layouts {', '.join(sorted(layouts))}; make a source of each")
    layout = layouts.pop()
    if layout == "audio" and transcribed:
        raise DataError(f"{name}: recordings without transcripts, which task ctc needs; give the file that names both")
    _audio_of.cache_clear()
    clips = [clip for path in paths for clip in _READERS[layout](path, source, where, transcribed)]
    if all(clip.fault for clip in clips):
        first = f"; {clips[0].name}: {clips[0].fault}" if clips else ""
        raise DataError(f"{name}: names no clip (read as {layout}){first}")
    return ClipList(name, clips)


def columns_of(source: SpeechSource, columns: list[str], name: str, *, transcribed: bool) -> tuple[str, str | None]:
    """Return the columns of clips and transcripts: those of the spec, else those that the layout has.

    Raises:
        DataError: There is no such column.
    """
    audio = _column(source.audio_column, AUDIO_COLUMNS, columns, name, "audio_column")
    if not transcribed and source.text_column is None:
        return audio, None
    return audio, _column(source.text_column, TEXT_COLUMNS, columns, name, "text_column")


def _manifest(path: Path, source: SpeechSource, where: str, transcribed: bool) -> Iterator[Clip]:
    root = Path(source.clips) if source.clips else path.parent
    return _listed(path, source, where, transcribed, root)


def _common_voice(path: Path, source: SpeechSource, where: str, transcribed: bool) -> Iterator[Clip]:
    root = Path(source.clips) if source.clips else path.parent / "clips"
    if not root.is_dir():
        raise DataError(f"{where}: {path} is of Common Voice, but {root} is not there; say in clips where they are")
    return _listed(path, source, where, transcribed, root)


def _listed(path: Path, source: SpeechSource, where: str, transcribed: bool, root: Path) -> Iterator[Clip]:
    columns = header_of(path, source.header)
    audio, text = columns_of(source, columns, f"{where} ({path})", transcribed=transcribed)
    for line, row in read_rows(path, columns, source.header):
        if isinstance(row, str):
            yield Clip(f"{path.name}:{line}", None, None, row)
            continue
        listed, sentence = row.get(audio), row.get(text) if text else None
        if isinstance(listed, dict):  # as datasets writes an audio column
            listed = listed.get("path")
        if not isinstance(listed, str) or not listed.strip():
            yield Clip(f"{path.name}:{line}", None, None, f"column {audio!r} names no clip")
        elif text and not isinstance(sentence, str):
            yield Clip(listed, None, None, f"column {text!r} holds no text ({path.name}:{line})")
        elif row.get("offset"):
            raise DataError(f"{where}: {path}:{line} names a part of a recording (offset); cut the clips first")
        else:
            file = root / Path(listed).expanduser()
            # The first releases of Common Voice left the suffix out.
            yield Clip(listed, sentence, file if file.suffix else file.with_suffix(".mp3"))


def _librispeech(path: Path, source: SpeechSource, where: str, _transcribed: bool) -> Iterator[Clip]:
    files = [path] if path.is_file() else sorted(path.rglob(f"*{_LIBRISPEECH}"))
    root = path.parent if path.is_file() else path
    for file in files:
        folder = Path(source.clips) / file.parent.relative_to(root) if source.clips else file.parent
        for number, line in _lines(file, where):
            name, _, text = line.partition(" ")
            yield _named(name, text, folder, f"{file.name}:{number}")


def _mls(path: Path, source: SpeechSource, where: str, _transcribed: bool) -> Iterator[Clip]:
    file = path if path.is_file() else path / _MLS
    root = Path(source.clips) if source.clips else file.parent / "audio"
    for number, line in _lines(file, where):
        name, _, text = line.partition("\t")
        yield _named(name, text, root.joinpath(*name.split("_")[:2]), f"{file.name}:{number}")


def _named(name: str, text: str, folder: Path, line: str) -> Clip:
    if not name.strip():
        return Clip(line, None, None, "names no clip")
    audio = _audio_of(folder).get(name)
    return Clip(name, text, audio, "" if audio else f"no audio of this name in {folder.name}/")


def _audio(path: Path, _source: SpeechSource, _where: str, _transcribed: bool) -> Iterator[Clip]:
    if path.is_file():
        yield Clip(path.name, None, path)
        return
    for file in sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES):
        yield Clip(file.relative_to(path).as_posix(), None, file)


_READERS = {
    "common_voice": _common_voice,
    "librispeech": _librispeech,
    "mls": _mls,
    "manifest": _manifest,
    "audio": _audio,
}


def _layout(path: Path, source: SpeechSource, where: str) -> str:
    if source.layout != "auto":
        return source.layout
    if path.is_dir():
        if (path / _MLS).is_file():
            return "mls"
        if next(path.rglob(f"*{_LIBRISPEECH}"), None) is not None:
            return "librispeech"
        if tables := sorted(file.name for file in path.iterdir() if file.suffix in MANIFEST_SUFFIXES):
            raise DataError(f"{where}.files: {path} is a directory; give one of its files, {listed(tables, 5)}")
        if any(file.suffix.lower() in AUDIO_SUFFIXES for file in path.rglob("*")):
            return "audio"
    elif path.name == _MLS:
        return "mls"
    elif path.name.endswith(_LIBRISPEECH):
        return "librispeech"
    elif path.suffix.lower() in AUDIO_SUFFIXES:
        return "audio"
    elif path.suffix.lower() in MANIFEST_SUFFIXES:
        columns = header_of(path, source.header) if path.suffix.lower() == ".tsv" else []
        has_clips = (path.parent / "clips").is_dir() or bool(source.clips)
        return "common_voice" if {"path", "sentence"} <= set(columns) and has_clips else "manifest"
    raise DataError(
        f"{where}.files: cannot tell what {path} is; give a Common Voice tsv, a LibriSpeech or MLS directory, a "
        f"manifest ({', '.join(MANIFEST_SUFFIXES)}) or audio ({', '.join(AUDIO_SUFFIXES)}), or set layout"
    )


def _expand(pattern: str, where: str) -> list[Path]:
    path = Path.cwd() / Path(pattern).expanduser()
    if path.exists():
        return [path]
    if not has_magic(pattern):
        raise DataError(f"{where}.files: {pattern!r} (looked for at {path}) does not exist")
    found = sorted(map(Path, glob(str(path), recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not found:
        raise DataError(f"{where}.files: {pattern!r} (looked for as {path}) matches nothing")
    return found


def _column(chosen: str | None, known: tuple[str, ...], columns: list[str], name: str, key: str) -> str:
    found = next((column for column in ((chosen,) if chosen else known) if column in columns), None)
    if found is None:
        wanted = repr(chosen) if chosen else f"called {', '.join(known)}"
        raise DataError(
            f"{name}: has no column {wanted}; it has {', '.join(map(repr, columns))}. Set {key} (and header, for csv "
            f"and tsv) to match"
        )
    return found


@lru_cache(maxsize=4096)
def _audio_of(folder: Path) -> dict[str, Path]:
    """Return stem -> audio file of a directory."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {file.stem: file for file in files if file.suffix.lower() in AUDIO_SUFFIXES}


def _lines(file: Path, where: str) -> Iterator[tuple[int, str]]:
    try:
        with file.open(encoding="utf-8-sig") as lines:
            yield from ((number, line.rstrip("\n")) for number, line in enumerate(lines, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: {file} cannot be read: {error}") from error
