"""A spoken corpus in many languages without network.

``python -m prunus.jobs.examples.speech_corpus --languages es,ky DIR``.

Words of Unicode's CLDR, spoken by espeak-ng, in the layout of Common Voice with a column of phones:

    DIR/LANGUAGE/{train,dev,test,clip_durations}.tsv, DIR/LANGUAGE/clips/*.flac (16 kHz, mono, 16 bit), DIR/corpus.json

    nothing -> corpus.unfinished.json (what was asked) -> es aside -> es (renamed when whole) ... -> corpus.json
A run that was broken off leaves whole languages only, and the same command goes on with the others.
"""

import argparse
import difflib
import fcntl
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from babel import Locale, UnknownLocaleError, localedata

from prunus.configs import __version__
from prunus.configs.artifacts.atomic_write import directory_aside, leftovers, write_atomic
from prunus.configs.values.wording import listed
from prunus.jobs.errors import DataError, JobError, StorageError
from prunus.jobs.examples.espeak import Espeak
from prunus.jobs.examples.speech_clips import SHARES, write_language
from prunus.jobs.examples.speech_phrases import phrases_of

LANGUAGES = ("es", "fr", "it", "ky", "nl", "ru", "sv", "tr", "tt", "zh")
"""PARP's ten of Common Voice."""
COMPLETE, UNFINISHED = "corpus.json", "corpus.unfinished.json"

_ASKED = ("languages", "minutes", "seed")


def write(folder: Path, languages: Sequence[str], minutes: float, seed: int) -> bool:
    """Write the corpus; return whether there was anything to do.

    Args:
        folder: New, empty, or of a run with the same request.
        languages: As babel knows them.
        minutes: Audio of each language's train split.
        seed: Draws phrases and speakers.

    Raises:
        DataError: A language is unknown or has too few phrases; the folder holds something else.
        StorageError: A language could not be written.
    """
    engine = Espeak()
    voices = find_voices(languages, engine.languages())
    request = {"languages": list(voices), "minutes": minutes, "seed": seed, "versions": _versions(engine)}
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if _is_complete(folder, request):
            return False
        for left in leftovers(folder):
            shutil.rmtree(left, ignore_errors=True)
        _write_json(folder / UNFINISHED, request)
        _make_all(folder, voices, minutes, seed)
        made = {
            language: {
                "voice": voice,
                "phrases": len(phrases_of(Locale.parse(language, sep="-"))),
                **_counts(folder / language),
            }
            for language, voice in voices.items()
        }
        _write_json(folder / COMPLETE, {**request, "made": made})
        (folder / UNFINISHED).unlink()
    return True


def find_voices(languages: Sequence[str], voices: dict[str, str]) -> dict[str, str]:
    """Return language -> espeak-ng's name of it.

    Raises:
        DataError: babel or espeak-ng does not know one.
    """
    found = {}
    for language in languages:
        voice = voices.get(language.lower()) or voices.get(language.lower().split("-")[0])
        if voice is None or not _has_words(language):
            raise DataError(_unknown(language, voices))
        found[language] = voice
    return found


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser("python -m prunus.jobs.examples.speech_corpus", description="make a spoken corpus")
    parser.add_argument("--languages", default=",".join(LANGUAGES), help="apart by commas")
    parser.add_argument("--minutes", type=float, default=10.0, help="audio of each train split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("folder", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    languages = list(dict.fromkeys(filter(None, map(str.strip, options.languages.split(",")))))
    try:
        if not languages:
            raise DataError(f"--languages {options.languages!r} names none; for example --languages es,ky")
        if not (math.isfinite(options.minutes) and options.minutes > 0):
            raise DataError(f"--minutes must be above 0, got {options.minutes:g}; for example --minutes 10")
        new = write(options.folder, languages, options.minutes, options.seed)
    except DataError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except (JobError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on where it stopped\n")
        return 130
    sys.stdout.write(f"{options.folder / COMPLETE}: {'written' if new else 'complete already'}\n")
    return 0


def _is_complete(folder: Path, request: dict[str, Any]) -> bool:
    """Whether the corpus is there. A complete one may be of other versions; one with no language yet, of anything."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    for name, keys in ((COMPLETE, _ASKED), (UNFINISHED, (*_ASKED, "versions"))):
        if name in names:
            there = _read_json(folder / name)
            other = [f"{key} {there.get(key)}, not {request[key]}" for key in keys if there.get(key) != request[key]]
            if other and names != [UNFINISHED]:
                raise DataError(f"{folder / name} says another corpus: {'; '.join(other)}; name another folder")
            return name == COMPLETE
    if names:
        raise DataError(f"{folder} is no corpus, it holds {listed(names)}; name a new or empty folder")
    return False


def _make_all(folder: Path, voices: dict[str, str], minutes: float, seed: int) -> None:
    """Make each language in a process of its own, for what espeak-ng says depends on what it said before."""
    # A fork has torch loaded already, which takes seconds; elsewhere it is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    waiting = [language for language in voices if not (folder / language).is_dir()]
    running: dict[int, tuple[str, BaseProcess, Connection]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                language = waiting.pop(0)
                result, sender = context.Pipe(duplex=False)
                arguments = (sender, folder, language, voices[language], minutes, seed)
                process: BaseProcess = context.Process(target=_make, args=arguments, daemon=True)
                process.start()
                sender.close()
                running[process.sentinel] = language, process, result
            ended = wait(list(running))
            for sentinel in [sentinel for sentinel in running if sentinel in ended]:
                language, process, result = running.pop(sentinel)
                process.join()
                _raise_failure(language, process, result)
                sys.stderr.write(f"{language:<4}{_summary(_counts(folder / language))}\n")
    finally:
        for _, process, _ in running.values():
            process.terminate()
            process.join()


def _make(sender: Connection, folder: Path, language: str, voice: str, minutes: float, seed: int) -> None:
    """Make one language aside, then rename it; send what failed, or None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends this process
    try:
        with directory_aside(folder / language) as aside:
            write_language(aside, language, voice, minutes, seed)
    except (JobError, OSError) as error:
        sender.send(error)
    else:
        sender.send(None)


def _raise_failure(language: str, process: BaseProcess, result: Connection) -> None:
    try:
        failure = result.recv()
    except EOFError:
        raise StorageError(
            f"{language}: its process ended with {process.exitcode} before it was done; run the same command again"
        ) from None
    if failure is not None:
        raise failure


def _counts(folder: Path) -> dict[str, dict[str, float]]:
    """Clips, minutes and speakers of each split, out of the tables."""
    seconds = {path: float(length) / 1000 for path, length in _rows(folder / "clip_durations.tsv")}
    counts = {}
    for split in SHARES:
        rows = list(_rows(folder / f"{split}.tsv"))
        minutes = sum(seconds[path] for _, path, *_ in rows) / 60
        counts[split] = {"clips": len(rows), "minutes": round(minutes, 2), "speakers": len({row[0] for row in rows})}
    return counts


def _rows(table: Path) -> Iterator[list[str]]:
    yield from (line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()[1:])


def _summary(counts: dict[str, dict[str, float]]) -> str:
    return ", ".join(f"{split} {count['minutes']:.1f} min in {count['clips']} clips" for split, count in counts.items())


def _has_words(language: str) -> bool:
    try:
        return re.fullmatch("[A-Za-z0-9-]+", language) is not None and bool(Locale.parse(language, sep="-"))
    except (UnknownLocaleError, ValueError):
        return False


def _unknown(language: str, voices: dict[str, str]) -> str:
    english = Locale("en").languages
    names = {tag: str(english.get(tag, tag)) for tag in voices if "-" not in tag and localedata.exists(tag)}
    tag_of = {**{name.lower(): tag for tag, name in names.items()}, **{tag: tag for tag in names}}
    near = dict.fromkeys(tag_of[word] for word in difflib.get_close_matches(language.lower(), tag_of, cutoff=0.75))
    guess = f"did you mean {' or '.join(f'{tag} ({names[tag]})' for tag in near)}? " if near else ""
    return f"--languages: babel and espeak-ng do not both know {language!r}; {guess}to choose from: {', '.join(names)}"


def _versions(engine: Espeak) -> dict[str, str]:
    packages = ("babel", "espeakng-loader", "soundfile", "torchaudio")
    return {"prunus": __version__, "espeak-ng": engine.version, **{package: version(package) for package in packages}}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder; the lock ends with the process, and with those it started."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DataError(f"another run writes into {folder}; wait for its end, or name another folder") from None
    finally:
        os.close(descriptor)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
