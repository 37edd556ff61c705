"""From a source to a model: what may be pruned, and every way in which a source can be wrong."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from prunus.configs import ResolvedSource
from prunus.configs.artifacts.manifest import MANIFEST, Manifest, build_entries, sha256_file
from prunus.configs.artifacts.mask_file import Facts
from prunus.configs.specs.model import ModelSpec
from prunus.configs.values.prunable import Prunable
from prunus.jobs.errors import ModelError, PruningError
from prunus.jobs.models import sources
from prunus.jobs.models.compatibility import check_same_labels, check_same_tokenizer
from prunus.jobs.models.inputs import load_speech_input, load_tokenizer
from prunus.jobs.models.load import load_model
from prunus.jobs.models.prunable import prunable_parameters
from prunus.jobs.models.sources import Origin, load_mask, open_source
from prunus.jobs.sparsity import mask_store
from tests.jobs import tiny

EVERY = Prunable()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory."""
    directory = tmp_path_factory.mktemp("model")
    tiny.bert().save_pretrained(directory)
    tiny.tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """Artifacts of a job as it leaves them: model/, masks of two steps, manifest."""
    root = tmp_path / "artifacts"
    tiny.bert().save_pretrained(root / "model")
    for step, kept in ((90, False), (200, True)):
        mask_store.save({"w": torch.tensor([kept])}, root / "masks" / f"step-{step}", Facts("locked", step))
    manifest = Manifest(job_id="j1", job_name="parent", attempt_id="j1-a1", files=build_entries(root))
    (root / MANIFEST).write_text(manifest.model_dump_json())
    return root


def origin_of(directory: Path) -> Origin:
    return Origin("job:parent", str(directory), None, "job:parent")


def artifact_source(root: Path, digest: str | None = None) -> ResolvedSource:
    return ResolvedSource(reference="job:parent", kind="artifact", location=str(root), manifest_sha256=digest)


class TestSources:
    def test_an_artifact_is_verified_and_brings_its_model_its_newest_mask_and_its_lineage(self, artifact: Path) -> None:
        digest = sha256_file(artifact / MANIFEST)
        origin = open_source(artifact_source(artifact, digest), artifact)
        assert origin.location == str(artifact / "model")
        assert origin.mask_directory == artifact / "masks" / "step-200"  # by number: "90" is the larger text
        assert origin.lineage == f"job:parent sha256:{digest}"
        assert load_mask(origin)["w"].tolist() == [True]

    def test_a_hub_id_is_left_to_transformers(self, tmp_path: Path) -> None:
        source = ResolvedSource(reference="org/name", kind="hub", location="org/name")
        assert open_source(source, tmp_path) == Origin("org/name", "org/name", None, "org/name")

    def test_a_directory_of_someone_else_needs_no_manifest(self, saved: Path, tmp_path: Path) -> None:
        source = ResolvedSource(reference="/models/x", kind="directory", location=str(saved))
        assert open_source(source, tmp_path) == Origin("/models/x", str(saved), None, "/models/x")

    def test_a_mask_directory_without_a_number_is_no_mask_of_ours(self, tmp_path: Path) -> None:
        mask_store.save({"w": torch.tensor([True])}, tmp_path / "masks" / "step-final", Facts("locked", 0))
        source = ResolvedSource(reference="/x", kind="directory", location=str(tmp_path))
        assert open_source(source, tmp_path).mask_directory is None

    def test_a_missing_directory_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"job:parent: the directory .*/gone does not exist on this node"):
            open_source(artifact_source(tmp_path / "gone"), tmp_path)

    def test_the_directory_of_a_run_by_hand_says_where_its_artifacts_are(self, artifact: Path, tmp_path: Path) -> None:
        source = ResolvedSource(reference="./out", kind="directory", location=str(artifact.parent))
        with pytest.raises(ModelError, match=r"\./out is where a job ran by hand; .* write \./out/artifacts"):
            open_source(source, tmp_path / "downloads")

    def test_a_compact_directory_says_how_it_is_turned_back(self, tmp_path: Path) -> None:
        (tmp_path / "model.sparse.safetensors").touch()
        source = ResolvedSource(reference="./small", kind="directory", location=str(tmp_path))
        with pytest.raises(ModelError, match=r"compact form of a model; turn it back first: prunus convert ./small"):
            open_source(source, tmp_path / "downloads")

    def test_an_artifact_without_manifest_is_unfinished(self, artifact: Path) -> None:
        (artifact / MANIFEST).unlink()
        with pytest.raises(ModelError, match=r"has no manifest\.json: the job that makes it has not finished"):
            open_source(artifact_source(artifact), artifact)

    def test_the_artifacts_of_an_mlflow_run_come_from_the_jobs_mlflow_and_once(
        self, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str | None] = []

        def download(run_id: str, dst_path: str, tracking_uri: str | None) -> None:
            asked.append(tracking_uri)
            shutil.copytree(artifact, dst_path, dirs_exist_ok=True)

        monkeypatch.setattr(sources.mlflow.artifacts, "download_artifacts", download)
        source = ResolvedSource(reference="models:/m@current", kind="run", location="r1")
        origins = [open_source(source, tmp_path / "d", "http://mlflow") for _ in range(2)]
        assert asked == ["http://mlflow"]
        assert origins[0] == origins[1]
        assert origins[0].location == str(tmp_path / "d" / "r1" / "model")

    def test_an_mlflow_that_does_not_know_the_run_is_named(self, tmp_path: Path) -> None:
        store = f"sqlite:///{tmp_path}/mlflow.db"
        source = ResolvedSource(reference="models:/m@current", kind="run", location="0" * 32)
        with pytest.raises(ModelError, match=r"models:/m@current: MLflow at sqlite.* does not give the artifacts"):
            open_source(source, tmp_path / "d", store)

    def test_a_changed_file_is_refused(self, artifact: Path) -> None:
        config = artifact / "model" / "config.json"
        config.write_text(config.read_text().replace("gelu", "relu"))
        with pytest.raises(ModelError, match=r"job:parent: .*config\.json differs from its manifest"):
            open_source(artifact_source(artifact), artifact)

    def test_a_changed_file_with_a_manifest_to_match_is_refused_by_the_manifests_digest(self, artifact: Path) -> None:
        digest = sha256_file(artifact / MANIFEST)
        (artifact / "model" / "config.json").write_text("{}")
        forged = Manifest(job_id="j1", job_name="parent", attempt_id="j1-a1", files=build_entries(artifact))
        (artifact / MANIFEST).write_text(forged.model_dump_json())
        with pytest.raises(ModelError, match=r"manifest\.json changed since the job that made it ended; do not use it"):
            open_source(artifact_source(artifact, digest), artifact)

    def test_a_path_that_leads_out_is_refused(self, artifact: Path) -> None:
        manifest = json.loads((artifact / MANIFEST).read_text())
        manifest["files"]["../../etc/passwd"] = {"sha256": "0" * 64, "size": 1}
        (artifact / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(ModelError, match="leads out of it"):
            open_source(artifact_source(artifact), artifact)

    def test_a_source_without_mask_is_named(self) -> None:
        with pytest.raises(PruningError, match=r"job:parent has no mask \(masks/step-N/mask\.safetensors\)"):
            load_mask(origin_of(Path("/x")))


class TestTokenizers:
    def test_the_same_words_are_the_same_tokenizer(self, saved: Path) -> None:
        check_same_tokenizer(load_tokenizer(origin_of(saved)), tiny.tokenizer(), "job:teacher")

    @pytest.mark.parametrize("words", [tiny.WORDS[:-1], [*tiny.WORDS[:-2], tiny.WORDS[-1], tiny.WORDS[-2]]])
    def test_a_missing_or_swapped_word_makes_a_teacher_unusable(self, words: list[str]) -> None:
        with pytest.raises(ModelError, match=r"distillation\.teacher job:teacher has another tokenizer"):
            check_same_tokenizer(tiny.tokenizer(), tiny.tokenizer(words), "job:teacher")

    def test_a_directory_without_tokenizer_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="job:parent: no tokenizer can be loaded from it"):
            load_tokenizer(origin_of(tmp_path))


class TestLabels:
    def test_classes_in_another_order_make_a_teacher_unusable(self) -> None:
        teacher = tiny.bert_classifier(id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1}, num_labels=2)
        check_same_labels(("no", "yes"), teacher, "job:teacher")
        with pytest.raises(ModelError, match=r"has the classes \['no', 'yes'\], the data has \['yes', 'no'\]"):
            check_same_labels(("yes", "no"), teacher, "job:teacher")

    def test_a_task_without_classes_takes_any_teacher(self) -> None:
        check_same_labels((), tiny.bert(), "job:teacher")


class TestLoading:
    def test_weights_come_back_in_fp32(self, saved: Path, tmp_path: Path) -> None:
        tiny.bert().bfloat16().save_pretrained(tmp_path)
        for directory in (saved, tmp_path):
            model = load_model(AutoModelForMaskedLM, origin_of(directory), None, {})
            assert {p.dtype for p in model.parameters()} == {torch.float32}
        own = load_model(AutoModelForMaskedLM, origin_of(saved), None, {}).state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in tiny.bert().state_dict().items())

    def test_random_weights_take_only_the_configuration(self, saved: Path) -> None:
        spec = ModelSpec.model_validate({"from": "job:parent", "init": "random", "config": {"num_hidden_layers": 1}})
        model = load_model(AutoModelForMaskedLM, origin_of(saved), spec, {})
        assert len(prunable_parameters(model, EVERY)) == 6
        assert not torch.equal(model.get_input_embeddings().weight, tiny.bert().get_input_embeddings().weight)

    def test_overrides_of_recipe_and_task_reach_the_model(self, saved: Path) -> None:
        spec = ModelSpec.model_validate({"from": "job:parent", "config": {"hidden_dropout_prob": 0.25}})
        model = load_model(AutoModelForSequenceClassification, origin_of(saved), spec, {"num_labels": 5})
        assert model.config.hidden_dropout_prob == 0.25
        assert model.classifier.weight.shape == (5, 8)

    def test_an_unknown_override_is_refused(self, saved: Path) -> None:
        spec = ModelSpec.model_validate({"from": "job:parent", "config": {"hiden_size": 8}})
        with pytest.raises(ModelError, match=r"model\.config\.hiden_size: BertConfig has no such setting"):
            load_model(AutoModelForMaskedLM, origin_of(saved), spec, {})

    def test_an_override_that_does_not_fit_the_weights_is_refused(self, saved: Path) -> None:
        spec = ModelSpec.model_validate({"from": "job:parent", "config": {"intermediate_size": 20}})
        with pytest.raises(ModelError, match="job:parent: no model for this task can be loaded from it"):
            load_model(AutoModelForMaskedLM, origin_of(saved), spec, {})

    def test_a_directory_without_model_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="job:parent: no model for this task can be loaded from it"):
            load_model(AutoModelForMaskedLM, origin_of(tmp_path), None, {})

    @pytest.mark.parametrize("length", [3, -100])
    def test_weights_cut_short_are_damaged(self, tmp_path: Path, length: int) -> None:
        tiny.bert().save_pretrained(tmp_path)
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:length])
        with pytest.raises(ModelError, match=r"job:parent: its weights are damaged"):
            load_model(AutoModelForMaskedLM, origin_of(tmp_path), None, {})

    @pytest.mark.parametrize("part", ["encoder.layer.1.output.dense.weight", "embeddings.word_embeddings.weight"])
    def test_a_checkpoint_that_lacks_a_weight_is_not_filled_at_random(self, tmp_path: Path, part: str) -> None:
        tiny.bert().save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        del tensors[f"bert.{part}"]
        tensors.pop("cls.predictions.decoder.weight", None)  # tied to the embeddings
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        spec = ModelSpec.model_validate({"from": "job:parent"})
        with pytest.raises(ModelError, match="use a checkpoint of this architecture"):
            load_model(AutoModelForMaskedLM, origin_of(tmp_path), spec, {})

    def test_a_new_head_is_meant_for_the_student_but_not_for_the_teacher(self, saved: Path) -> None:
        spec = ModelSpec.model_validate({"from": "job:parent"})
        load_model(AutoModelForSequenceClassification, origin_of(saved), spec, {"num_labels": 2})
        with pytest.raises(ModelError, match="use a teacher trained for this task"):
            load_model(AutoModelForSequenceClassification, origin_of(saved), None, {})


@pytest.mark.parametrize("positions", ["relative", "rotary", None])
def test_a_conformer_is_refused_by_name(tmp_path: Path, positions: str | None) -> None:
    transformers.Wav2Vec2ConformerConfig(position_embeddings_type=positions).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="Wav2Vec2ConformerConfig, whose batch normalisation"):
        load_speech_input(Origin("./conformer", str(tmp_path), None, "./conformer"))
