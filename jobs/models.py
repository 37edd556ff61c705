"""From a resolved source to a model: where its files lie, its tokenizer, its weights, and which may be pruned."""

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlflow
import torch
from mlflow.exceptions import MlflowException
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
)

from configs import ConfigError, ResolvedSource
from configs.artifacts import MANIFEST, sha256_file, verify
from configs.compact import is_compact_name, is_plain_name
from configs.methods import Prunable
from configs.spec import ModelSpec
from jobs import masks as masks_module
from jobs.data import Inputs
from jobs.data.speech_input import SpeechInput
from jobs.errors import ModelError, PruningError
from jobs.masks import Masks

log = logging.getLogger(__name__)

SPEECH_TASKS = {"ctc", "wav2vec2_pretraining"}
"""Tasks that hear."""
_NOT_IN_ENCODER = re.compile(r"(^|\.)(pooler|embeddings?(_\w+)?|feature_projection|feature_extractor)(\.|$)")


@dataclass(frozen=True)
class Origin:
    """A source on disk (or a hub id), verified.

    Attributes:
        reference: As the user wrote it.
        location: Directory or hub id that transformers loads.
        mask_directory: Where the source's mask lies; None if it has none.
        lineage: ``REFERENCE sha256:DIGEST`` of its manifest, or the reference alone.
    """

    reference: str
    location: str
    mask_directory: Path | None
    lineage: str


def open_source(source: ResolvedSource, download_to: Path, mlflow_uri: str | None = None) -> Origin:
    """Bring a source to disk and verify its manifest.

    Args:
        download_to: Where the artifacts of an MLflow run go, unless they are there already.
        mlflow_uri: MLflow that has them.

    Raises:
        ModelError: Missing, damaged, tampered with, or not the one that the server resolved.
    """
    if source.kind == "hub":
        return Origin(source.reference, source.location, None, source.reference)
    directory = Path(source.location)
    if source.kind == "run":
        directory = _download(source, download_to / source.location, mlflow_uri)
    if not directory.is_dir():
        raise ModelError(f"{source.reference}: the directory {directory} does not exist on this node; check the path")
    if not (directory / MANIFEST).is_file():
        _refuse_compact(directory, source.reference)
        if source.kind != "directory":
            raise ModelError(
                f"{source.reference}: {directory} has no {MANIFEST}: the job that makes it has not finished"
            )
        return Origin(source.reference, str(directory), _mask_in(directory), source.reference)
    digest = sha256_file(directory / MANIFEST)
    if source.manifest_sha256 not in {None, digest}:
        raise ModelError(
            f"{source.reference}: {directory / MANIFEST} changed since the job that made it ended; do not use it"
        )
    try:
        verify(directory)
    except ConfigError as error:
        raise ModelError(f"{source.reference}: {error}") from error
    model = directory / "model" if (directory / "model").is_dir() else directory
    _refuse_compact(model, source.reference)
    return Origin(source.reference, str(model), _mask_in(directory), f"{source.reference} sha256:{digest}")


def _refuse_compact(directory: Path, reference: str) -> None:
    names = [file.name for file in directory.iterdir()]
    if any(map(is_compact_name, names)) and not any(map(is_plain_name, names)):
        raise ModelError(
            f"{reference} holds the compact form of a model; turn it back first: prunus convert {reference} DEST --to "
            "plain"
        )


def _download(source: ResolvedSource, directory: Path, mlflow_uri: str | None) -> Path:
    if (directory / MANIFEST).is_file():  # written last, by the rename below
        return directory
    aside = directory.with_name(f"{directory.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        mlflow.artifacts.download_artifacts(run_id=source.location, dst_path=str(aside), tracking_uri=mlflow_uri)
    except MlflowException as error:
        raise ModelError(
            f"{source.reference}: MLflow at {mlflow_uri} does not give the artifacts of run {source.location}: "
            f"{_first_line(error)}"
        ) from error
    aside.rename(directory)
    return directory


def _mask_in(directory: Path) -> Path | None:
    found = {
        int(path.parent.name.removeprefix("step-")): path.parent
        for path in directory.glob(f"masks/step-*/{masks_module.FILE_NAME}")
        if path.parent.name.removeprefix("step-").isdigit()
    }
    return found[max(found)] if found else None


def load_mask(origin: Origin) -> Masks:
    """Read the mask that a source brings.

    Raises:
        PruningError: It brings none.
    """
    if origin.mask_directory is None:
        raise PruningError(
            f"{origin.reference} has no mask (masks/step-N/{masks_module.FILE_NAME}); use another source"
        )
    return masks_module.load(origin.mask_directory)


def load_inputs(task: str, origin: Origin) -> Inputs:
    """Load what a source says of its inputs: its tokenizer, or its feature extractor and units.

    Raises:
        ModelError: It says nothing.
    """
    return load_speech_input(origin) if task in SPEECH_TASKS else load_tokenizer(origin)


def load_speech_input(origin: Origin) -> SpeechInput:
    """Load the feature extractor, configuration and units of a source.

    Raises:
        ModelError: It is no speech model, or not one of raw samples.
    """
    try:
        config = AutoConfig.from_pretrained(origin.location)
        extractor = AutoFeatureExtractor.from_pretrained(origin.location)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{origin.reference}: no feature extractor of a speech model can be loaded from it: {_first_line(error)}"
        ) from error
    if not isinstance(extractor, Wav2Vec2FeatureExtractor) or not hasattr(config, "conv_stride"):
        raise ModelError(
            f"{origin.reference} is a {type(config).__name__}; speech tasks take models of the wav2vec 2.0 family "
            "(wav2vec2, XLS-R, HuBERT, WavLM)"
        )
    tokens: tuple[str, ...] = ()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a pre-trained model has no units yet
        vocabulary = Wav2Vec2CTCTokenizer.from_pretrained(origin.location).get_vocab()
        tokens = tuple(sorted(vocabulary, key=lambda token: vocabulary[token]))
    return SpeechInput(extractor, config, tokens)


def load_tokenizer(origin: Origin) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of a source.

    Raises:
        ModelError: It has none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(origin.location)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{origin.reference}: no tokenizer can be loaded from it: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{origin.reference}: only a slow tokenizer; save it with a tokenizer.json")
    return tokenizer


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the vocabulary (token -> id): equal digests mean that logits line up."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def check_same_tokenizer(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, reference: str) -> None:
    """Refuse a teacher whose logits mean other tokens.

    Raises:
        ModelError: The vocabularies differ.
    """
    if tokenizer_digest(student) != tokenizer_digest(teacher):
        raise ModelError(
            f"distillation.teacher {reference} has another tokenizer ({len(teacher)} tokens) than the model "
            f"({len(student)} tokens): its logits mean other words; use a teacher with the model's tokenizer"
        )


def check_same_labels(labels: tuple[str, ...], teacher: PreTrainedModel, reference: str) -> None:
    """Refuse a teacher whose classes are other ones, or in another order; no effect for tasks without classes.

    Raises:
        ModelError: The classes differ.
    """
    theirs = tuple(str(teacher.config.id2label[i]) for i in range(len(teacher.config.id2label)))
    if labels and theirs != labels:
        raise ModelError(
            f"distillation.teacher {reference} has the classes {list(theirs)}, the data has {list(labels)}; use a "
            "teacher of the same task, or give task.labels in the teacher's order"
        )


def load_model(auto_class: Any, origin: Origin, spec: ModelSpec | None, overrides: dict[str, Any]) -> PreTrainedModel:
    """Load weights (fp32), or build them at random, with configuration overrides.

    Args:
        auto_class: ``AutoModelFor...`` of the task.
        spec: Model part of the job's spec; None for a teacher.
        overrides: The task's own configuration (labels).

    Raises:
        ModelError: No model there, an unknown override, damaged weights.
    """
    try:
        config = AutoConfig.from_pretrained(origin.location)
        for key, value in (spec.config if spec else {}).items():
            if not hasattr(config, key):
                raise ModelError(
                    f"model.config.{key}: {type(config).__name__} has no such setting; look at its documentation"
                )
            setattr(config, key, value)
        for key, value in overrides.items():
            setattr(config, key, value)
        if spec is not None and spec.init == "random":
            return auto_class.from_config(config, dtype=torch.float32)
        model, report = auto_class.from_pretrained(
            origin.location, config=config, dtype=torch.float32, output_loading_info=True
        )
        _refuse_random_weights(model, set(report["missing_keys"]), origin.reference, head_too=spec is None)
        return model
    except SafetensorError as error:
        raise ModelError(
            f"{origin.reference}: its weights are damaged ({_first_line(error)}); fetch or make it again"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{origin.reference}: no model for this task can be loaded from it: {_first_line(error)}"
        ) from error


def _refuse_random_weights(model: PreTrainedModel, missing: set[str], reference: str, *, head_too: bool) -> None:
    """Refuse what transformers only logs: a checkpoint's missing weights are filled with random numbers.

    A new head or pooler is meant, a new encoder (with its embeddings) or teacher is not.
    """
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    wrong = sorted(m for m in missing if head_too or (m.startswith(prefix) and ".pooler." not in m))
    if wrong:
        raise ModelError(
            f"{reference} lacks {len(wrong)} weights that {type(model).__name__} needs ({_listed(wrong[:3])}); they "
            "would be random: "
            f"{'use a teacher trained for this task' if head_too else 'use a checkpoint of this architecture'}"
        )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]


def prunable_parameters(model: PreTrainedModel, rule: Prunable) -> dict[str, nn.Parameter]:
    """Every ``nn.Linear.weight`` inside the encoder that the rule takes, in the model's order.

    Heads, pooler, embeddings, LayerNorm, biases and convolutional feature extractors are never among them.

    Raises:
        PruningError: Nothing is left, or a pattern matches nothing; names what exists.
    """
    prefix = model.base_model_prefix if model.base_model is not model else ""
    found = {
        f"{name}.weight": cast(nn.Parameter, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and (not prefix or name.startswith(f"{prefix}."))
        and not _NOT_IN_ENCODER.search(name)
    }
    if not found:
        raise PruningError(f"{type(model).__name__} has no linear layer inside its encoder: nothing can be pruned")
    for field in ("include", "exclude"):
        for pattern in getattr(rule, field):
            if not any(re.search(pattern, name) for name in found):
                raise PruningError(
                    f"method.prunable.{field}: {pattern!r} matches no weight; there are {len(found)}: {_listed(found)}"
                )
    chosen = {
        name: weight
        for name, weight in found.items()
        if any(re.search(p, name) for p in rule.include) and not any(re.search(p, name) for p in rule.exclude)
    }
    if not chosen:
        raise PruningError(f"method.prunable leaves no weight to prune; there are {len(found)}: {_listed(found)}")
    return chosen


def _listed(names: Iterable[str]) -> str:
    """Names with layer numbers folded, so that the list stays short."""
    return ", ".join(dict.fromkeys(re.sub(r"\.\d+\.", ".N.", name) for name in names))
