"""``make demo``: the whole way on this machine, from real weights and words to fetched sparse checkpoints and tables.

    data (offline, once) -> up -> submit prune_ofa/demo .. follow .. fetch three models -> table
                               -> submit parp/demo      :           fetch three models and their comparison -> tables
Both campaigns are queued at once, so that jobs of one rank run two at a time, each beside one of the other campaign.
A second run finds data, servers and finished jobs again, verifies what was fetched, and only prints the tables.
"""

import hashlib
import importlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from prunus.configs import Campaign, ConfigError
from prunus.configs.artifacts.compact.layout import packed_path
from prunus.configs.artifacts.comparison.result import COMPARISON_FILE, Comparison
from prunus.configs.errors import ArtifactError
from prunus.service.cli import comparison_tables as comparison_view
from prunus.service.cli import follow, terminal
from prunus.service.cli import tables as render
from prunus.service.client import Client, fetch
from prunus.service.errors import ServiceError
from prunus.service.local import up as embedded
from prunus.service.submission import shipped_recipes as recipe_files
from prunus.service.wire import ArtifactView, CampaignView, JobState, JobView

HOME = Path(".prunus")
DATA = HOME / "demo-data"
OUT = Path("demo-out")
FETCHED = ("sparse", "dense-task", "sparse-task")
LANGUAGES = ("es", "it", "tr")
MINUTES = "3"
POLL_S = 2.0
"""Looking is work for the same two cores: 3% of one at a look a second, here and in the server each."""
SMALL = ("--channels", "16,16,32,32,32,32,32", "--layers", "3", "--dropout", "0")
"""A wav2vec 2.0 that learns something within the demo's minutes."""


def main() -> int:
    """Run the demo; 0 if every job succeeded and every fetched file is what its manifest says."""
    began = time.monotonic()
    home = HOME.resolve()
    try:
        make_data()
        campaigns = [recipe_files.load_recipe(name, []) for name in ("prune_ofa/demo", "parp/demo")]
        state = embedded.up(home, None, terminal.note)
        with Client(state.server_url) as client:
            text, speech = run_campaigns(client, campaigns)
            pages = [prune_ofa_page(client, text)] if text else []
            pages += [parp_page(client, speech)] if speech else []
    except (ServiceError, ConfigError, ArtifactError) as error:
        terminal.note(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        terminal.note(f"stopped looking; the jobs go on. `prunus down --home {HOME}` ends everything")
        return terminal.EXIT_INTERRUPTED
    for page in pages:
        terminal.stdout().print(page)
    if len(pages) < len(campaigns):
        return 1
    run_url = next((job.run_url for job in text if job.name == "sparse"), None)
    for line in (
        f"fetched    {', '.join(str(OUT / name) for name in FETCHED)}   (look: prunus inspect {OUT / 'sparse'})",
        f"heat maps  {OUT / 'compare' / 'figures'}   (IOU of the languages' masks, sparsity per layer)",
        f"MLflow     {run_url or state.mlflow_url}   (the sparse job; `Runs` lists all)",
        f"took       {render.duration(time.monotonic() - began)}",
        f"still up   prunus list --url {state.server_url}; to end it: prunus down --home {HOME}",
    ):
        terminal.stdout().print(line, soft_wrap=True)
    return 0


def run_campaigns(client: Client, campaigns: Sequence[Campaign]) -> list[list[JobView]]:
    """Queue the campaigns, or find them again, and follow them together; the jobs of each, none of one that did not
    succeed whole.
    """
    groups = [[job.id for job in submit_or_reuse(client, campaign).jobs] for campaign in campaigns]
    ids = [job_id for group in groups for job_id in group]
    seen = follow.follow(client, ids, terminal.stdout(), terminal.note, poll_s=POLL_S)
    jobs = {job.id: job for job in seen}
    for job in jobs.values():
        if job.state is not JobState.SUCCEEDED:
            terminal.note(f"{job.name} is {job.state.value}: {job.why}")
    followed = [[jobs[job_id] for job_id in group] for group in groups]
    return [group if all(job.state is JobState.SUCCEEDED for job in group) else [] for group in followed]


def prune_ofa_page(client: Client, jobs: list[JobView]) -> RenderableType:
    """Fetch the language models; sizes, zeros and accuracy."""
    by_name = {job.name: job for job in jobs}
    for name in FETCHED:
        terminal.note(fetch.fetch(client, f"job:{by_name[name].id}", OUT / name).summary)
    sizes = {job.name: weight_bytes(client.artifacts(f"job:{job.id}")) for job in jobs}
    return results_table(jobs, OUT, sizes)


def parp_page(client: Client, jobs: list[JobView]) -> RenderableType:
    """Fetch the languages' models and their comparison; error rates, and how the masks agree."""
    for job in jobs:
        if job.name.startswith("parp-") or job.name == "compare":
            terminal.note(fetch.fetch(client, f"job:{job.id}", OUT / job.name).summary)
    text = (OUT / "compare" / COMPARISON_FILE).read_bytes()
    return comparison_view.page(Comparison.model_validate_json(text), "PARP: one sparse model per language")


def make_data() -> None:
    """Write the demo's text, speech and models, unless they are there; in processes of their own, for this one has no
    torch.
    """
    languages = ",".join(LANGUAGES)
    for done, module, words in (
        (DATA / "model" / "model.safetensors", "prunus.jobs.examples.text", (str(DATA),)),
        (
            DATA / "speech-model" / "config.json",
            "prunus.jobs.examples.speech_model",
            (str(DATA / "speech-model"), *SMALL),
        ),
        (
            DATA / "speech" / "corpus.json",
            "prunus.jobs.examples.speech_corpus",
            ("--languages", languages, "--minutes", MINUTES, str(DATA / "speech")),
        ),
    ):
        if done.is_file():
            continue
        made = subprocess.run([sys.executable, "-m", module, *words], check=False)  # noqa: S603 - our own modules
        if made.returncode:
            raise ConfigError(
                f"the demo's data could not be made by {module} (exit {made.returncode})",
                remedy="run `make setup` again",
            )


def submit_or_reuse(client: Client, campaign: Campaign) -> CampaignView:
    """Queue the campaign, or find the one that was queued for the same specs; a failed one is queued anew."""
    digest = hashlib.sha256(campaign.model_dump_json().encode()).hexdigest()[:32]
    for run in range(1, 100):
        view = client.submit(campaign, f"demo-{digest}-{run}")
        ended_badly = {JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED}
        if not any(job.state in ended_badly for job in view.jobs):
            return view
    return client.submit(campaign)


def weight_bytes(artifact: ArtifactView) -> tuple[int, int | None]:
    """Bytes of an artifact's weights, plain and in the packed compact form; None for a dense model, which has none."""
    sizes = {file.path: file.size for file in artifact.files}
    plain = {path: packed for path in sizes if (packed := packed_path(path))}
    compact = sum(sizes.get(packed, 0) for packed in plain.values())
    return sum(sizes[path] for path in plain), compact or None


def results_table(jobs: list[JobView], out: Path, sizes: dict[str, tuple[int, int | None]]) -> Table:
    """Sparsity, accuracy, bytes of the weights and time of each job; zeros are counted in fetched files."""
    inspect = importlib.import_module("prunus.configs.artifacts.inspection").inspect  # brings NumPy
    table = Table(title="Prune OFA: pruned once at pre-training, then fine-tuned", title_justify="left", box=None)
    for header in ("JOB", "PRUNABLE ZEROS", "WHOLE MODEL", "EVAL LOSS", "ACCURACY", "PLAIN", "COMPACT", "TIME"):
        table.add_column(header, justify="left" if header == "JOB" else "right")
    for job in jobs:
        prunable, whole = job.metrics.get("sparsity/prunable"), job.metrics.get("sparsity/model")
        if (out / job.name).is_dir():
            report = inspect(out / job.name)
            counted = {total.of: total.sparsity for total in report.totals}
            prunable = counted.get("prunable weights", prunable)
            whole = counted.get("all weights", whole)
        plain, compact = sizes[job.name]
        table.add_row(
            Text(job.name),
            _share(prunable),
            _share(whole),
            render.number(job.metrics.get("eval/loss")),
            _share(job.metrics.get("eval/accuracy")),
            render.size(plain),
            render.size(compact),
            render.duration(render.elapsed(job)),
        )
    return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}%"


if __name__ == "__main__":
    sys.exit(main())
