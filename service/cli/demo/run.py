"""``make demo``: the whole way on this machine, from real weights and words to fetched sparse checkpoints and tables.

    data (offline, once) -> up -> submit prune_ofa/demo .. follow .. fetch three models -> table
                               -> submit parp/demo      :           fetch three models and their comparison -> tables
Both campaigns are queued at once, so that jobs of one rank run two at a time, each beside one of the other campaign.
A second run finds data, servers and finished jobs again, verifies what was fetched, and only prints the tables.
"""

import time

from prunus.configs import ConfigError
from prunus.configs.errors import ArtifactError
from prunus.service.cli.demo.campaigns import run_campaigns
from prunus.service.cli.demo.data import HOME, make_data
from prunus.service.cli.demo.results import FETCHED, OUT, parp_page, prune_ofa_page
from prunus.service.cli.shown.words import duration
from prunus.service.cli.terminal import EXIT_INTERRUPTED, note, stdout
from prunus.service.client import Client
from prunus.service.errors import ServiceError
from prunus.service.local.up import up
from prunus.service.submission.shipped_recipes import load_recipe


def main() -> int:
    """Run the demo; 0 if every job succeeded and every fetched file is what its manifest says."""
    began = time.monotonic()
    home = HOME.resolve()
    try:
        make_data()
        campaigns = [load_recipe(name, []) for name in ("prune_ofa/demo", "parp/demo")]
        state = up(home, None, note)
        with Client(state.server_url) as client:
            text, speech = run_campaigns(client, campaigns)
            pages = [prune_ofa_page(client, text)] if text else []
            pages += [parp_page(client, speech)] if speech else []
    except (ServiceError, ConfigError, ArtifactError) as error:
        note(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        note(f"stopped looking; the jobs go on. `prunus down --home {HOME}` ends everything")
        return EXIT_INTERRUPTED
    for shown in pages:
        stdout().print(shown)
    if len(pages) < len(campaigns):
        return 1
    run_url = next((job.run_url for job in text if job.name == "sparse"), None)
    for line in (
        f"fetched    {', '.join(str(OUT / name) for name in FETCHED)}   (look: prunus inspect {OUT / 'sparse'})",
        f"heat maps  {OUT / 'compare' / 'figures'}   (IOU of the languages' masks, sparsity per layer)",
        f"MLflow     {run_url or state.mlflow_url}   (the sparse job; `Runs` lists all)",
        f"took       {duration(time.monotonic() - began)}",
        f"still up   prunus list --url {state.server_url}; to end it: prunus down --home {HOME}",
    ):
        stdout().print(line, soft_wrap=True)
    return 0
