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
from typing import Any

import mlflow
import torch
from mlflow.exceptions import MlflowException
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
)

from prunus.configs import ConfigError, ResolvedSource
from prunus.configs.artifacts.compact.layout import is_compact_name, is_plain_name
from prunus.configs.artifacts.layout import MANIFEST, sha256_file, verify
from prunus.configs.specs.job import ModelSpec
from prunus.jobs.data.build import Inputs
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.errors import ModelError, PruningError
from prunus.jobs.models.prunable import listed
from prunus.jobs.sparsity import masks as masks_module
from prunus.jobs.sparsity.masks import Masks

log = logging.getLogger(__name__)

_MAY_BE_NEW = re.compile(r"\.pooler\.|\.masked_spec_embed$")
"""Parts of an encoder that a checkpoint may lack: each task makes its own."""
SPEECH_TASKS = {"ctc", "wav2vec2_pretraining"}
"""Tasks that hear."""


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
    if (directory / "artifacts" / MANIFEST).is_file():
        raise ModelError(
            f"{source.reference} is where a job ran by hand; what it left is below: write {source.reference}/artifacts"
        )
    if not (directory / MANIFEST).is_file():
        _refuse_compact(directory, source.reference)
        if source.kind != "directory":
            raise ModelError(
                f"{source.reference}: {directory} has no {MANIFEST}: the job that makes it has not finished"
            )
        return Origin(source.reference, str(directory), masks_module.newest(directory), source.reference)
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
    return Origin(source.reference, str(model), masks_module.newest(directory), f"{source.reference} sha256:{digest}")


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
    known = hasattr(config, "conv_stride") and hasattr(config, "feat_extract_norm")
    if not isinstance(extractor, Wav2Vec2FeatureExtractor) or not known:
        raise ModelError(
            f"{origin.reference} is a {type(config).__name__}; speech tasks take models of the wav2vec 2.0 family "
            "(wav2vec2, XLS-R, HuBERT, WavLM)"
        )
    if "conformer" in config.model_type:
        raise ModelError(
            f"{origin.reference} is a {type(config).__name__}, whose batch normalisation makes the result depend on "
            "how a batch is cut into ranks and micro-batches; use wav2vec2, XLS-R, HuBERT or WavLM"
        )
    tokens: tuple[str, ...] = ()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a pre-trained model has no units yet
        vocabulary = Wav2Vec2CTCTokenizer.from_pretrained(origin.location).get_vocab()
        # Tokenizers add <s> and </s> behind a vocabulary that has no such unit; the head knows nothing of them.
        tokens = tuple(sorted(vocabulary, key=lambda token: vocabulary[token]))[: config.vocab_size]
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
        new_head = spec is not None and spec.head == "new"
        model, report = auto_class.from_pretrained(
            origin.location,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=new_head,
        )
        _refuse_random_weights(model, set(report["missing_keys"]), origin.reference, head_too=spec is None)
        return _with_new_head(auto_class, model, origin.reference, report["mismatched_keys"]) if new_head else model
    except SafetensorError as error:
        raise ModelError(
            f"{origin.reference}: its weights are damaged ({_first_line(error)}); fetch or make it again"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        advice = "; if only the head is another one: model: {head: new}" if "mismatched_sizes" in str(error) else ""
        raise ModelError(
            f"{origin.reference}: no model for this task can be loaded from it: {_first_line(error)}{advice}"
        ) from error


def _with_new_head(auto_class: Any, model: PreTrainedModel, reference: str, mismatched: Iterable[Any]) -> Any:
    """The same encoder under a random head, however well the old one would fit."""
    wrong = [str(key[0] if isinstance(key, tuple) else key) for key in mismatched]
    if inside := [name for name in wrong if name.startswith(f"{model.base_model_prefix}.")]:
        raise ModelError(f"{reference}: {inside[0]} has another size than the configuration says; drop model.config")
    fresh = auto_class.from_config(model.config, dtype=torch.float32)
    fresh.base_model.load_state_dict(model.base_model.state_dict())
    return fresh


def check_same_units(trained: SpeechInput, labels: tuple[str, ...], reference: str) -> None:
    """Refuse a head that says other units, or the same ones in another order; no effect for tasks without units.

    Raises:
        ModelError: The vocabularies differ.
    """
    has_head = any("CTC" in name for name in trained.config.architectures or ())
    if not labels or not has_head or trained.tokens in {(), labels}:
        return
    missing, other = set(labels) - set(trained.tokens), set(trained.tokens) - set(labels)
    raise ModelError(
        f"{reference} has a head for other units: it lacks {_some_units(missing)} and has {_some_units(other)} beside "
        "the data's; begin with a new head (model: {head: new}), or learn its units (transcripts: {vocabulary: model})"
    )


def _some_units(units: set[str]) -> str:
    shown = ", ".join(repr(unit) for unit in sorted(units)[:5])
    return f"{shown} and {len(units) - 5} more" if len(units) > 5 else shown or "none"


def _refuse_random_weights(model: PreTrainedModel, missing: set[str], reference: str, *, head_too: bool) -> None:
    """Refuse what transformers only logs: a checkpoint's missing weights are filled with random numbers.

    A new head or pooler is meant, a new encoder (with its embeddings) or teacher is not.
    """
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    wrong = sorted(m for m in missing if head_too or (m.startswith(prefix) and not _MAY_BE_NEW.search(m)))
    if wrong:
        raise ModelError(
            f"{reference} lacks {len(wrong)} weights that {type(model).__name__} needs ({listed(wrong[:3])}); they "
            "would be random: "
            f"{'use a teacher trained for this task' if head_too else 'use a checkpoint of this architecture'}"
        )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]
