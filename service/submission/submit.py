"""From a campaign to queued jobs: everything the recipe's reader cannot know is checked here, before a row is written.

Refused: an unknown ``job:`` or ``after:`` name, jobs that wait for each other, a gang that the cluster can never hold,
and, when embedded, files and directories that do not exist. When Ray does not answer, the jobs are queued all the same.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping

from prunus.cluster.errors import ClusterError
from prunus.cluster.executor import Capacity, Executor
from prunus.configs import AnySpec, Campaign, ComparisonSpec
from prunus.configs.reading.graph import check_graph
from prunus.configs.values.wording import listed
from prunus.service.errors import Refused
from prunus.service.scheduling.admission import refuse_impossible
from prunus.service.store.ids import new_ids
from prunus.service.store.rows import CampaignRow, NewJob
from prunus.service.store.store import Store
from prunus.service.submission.local_files import missing_by_jobs
from prunus.service.wire import JobState

log = logging.getLogger(__name__)

MAX_KEY_LENGTH = 200
_USABLE = (JobState.SUCCEEDED, JobState.BLOCKED, JobState.QUEUED, JobState.STARTING, JobState.RUNNING)
"""An earlier job in one of these may be named by ``job:``."""


class Submitter:
    """Queues campaigns.

    Args:
        store: Where to.
        executor: Asked for the cluster's size.
        embedded: Paths of a recipe are this machine's, and are checked.
        clock: Unix seconds.
    """

    def __init__(
        self, store: Store, executor: Executor, *, embedded: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._executor = executor
        self._embedded = embedded
        self._clock = clock

    def submit(self, campaign: Campaign, key: str | None = None) -> str:
        """Queue all jobs of a campaign, or none.

        Args:
            key: Idempotency key: the same key and campaign again give the first answer.

        Returns:
            Id of the campaign.

        Raises:
            Refused: Something in it cannot work; all mistakes are named.
        """
        digest = hashlib.sha256(campaign.model_dump_json(by_alias=True).encode()).hexdigest()
        if key is not None:
            if not 0 < len(key) <= MAX_KEY_LENGTH:
                raise Refused(f"the idempotency key has {len(key)} characters; give 1 to {MAX_KEY_LENGTH}")
            earlier = self._store.campaign_of_key(key, digest)
            if earlier is not None:
                return earlier
        now = self._clock()
        jobs = self._plan(campaign, now)
        row = CampaignRow(new_ids("c", 1, now)[0], campaign.name, now, campaign.max_parallel)
        campaign_id = self._store.add_campaign(row, campaign.labels, jobs, key, digest)
        if campaign_id == row.id:
            log.info("campaign=%s %d jobs queued: %s", row.id, len(jobs), ", ".join(job.id for job in jobs))
        return campaign_id

    def _plan(self, campaign: Campaign, now: float) -> list[NewJob]:
        if not campaign.jobs:
            raise Refused("the campaign has no jobs; give at least one")
        errors = [str(error) for error in check_graph([(spec, None) for spec in campaign.jobs], "")]
        if errors:
            raise Refused("\n".join(errors))
        capacity = self._capacity()
        ids = dict(zip((spec.name for spec in campaign.jobs), new_ids("j", len(campaign.jobs), now), strict=True))
        jobs = []
        unknown: dict[str, list[str]] = {}
        for spec in campaign.jobs:
            references = self._references(spec, ids, unknown, errors)
            if capacity is not None and (why := refuse_impossible(spec.name, spec.resources, capacity)):
                errors.append(why)
            parents = tuple(dict.fromkeys([*(ids[name] for name in spec.after if name in ids), *references.values()]))
            state = JobState.BLOCKED if parents else JobState.QUEUED
            why = "waits for the jobs before it" if parents else "waits for its turn"
            jobs.append(NewJob(ids[spec.name], spec, parents, references, state, why))
        errors += [
            f"job:{name}, which {listed(names)} {'reads' if len(names) == 1 else 'read'} from, is neither in this "
            "campaign nor an earlier job that succeeded or may yet; submit what makes it first (jobs here: "
            f"{listed(sorted(ids))})"
            for name, names in unknown.items()
        ]
        if self._embedded:
            gone = missing_by_jobs(campaign.jobs)
            errors += [f"{names}: {missing.place}: {missing.what}; {missing.remedy}" for missing, names in gone.items()]
        if errors:
            raise Refused("\n".join(errors))
        return jobs

    def _references(
        self, spec: AnySpec, ids: Mapping[str, str], unknown: dict[str, list[str]], errors: list[str]
    ) -> dict[str, str]:
        """What each ``job:NAME`` means: a job of the campaign, else the newest of that name that may still serve.

        Args:
            unknown: Names that mean nothing are added, with the names of the jobs that read from them.
            errors: Other mistakes are added.
        """
        found: dict[str, str] = {}
        for name in spec.parents:
            earlier = None if name in ids else self._store.newest_job(name, _USABLE)
            if name in ids:
                found[name] = ids[name]
            elif earlier is not None and isinstance(earlier.spec, ComparisonSpec):
                errors.append(
                    f"job {spec.name!r} reads from job:{name}, which compares and leaves neither model nor mask; name "
                    "a job that trains"
                )
            elif earlier is not None:
                found[name] = earlier.id
            else:
                unknown.setdefault(name, []).append(spec.name)
        return found

    def _capacity(self) -> Capacity | None:
        try:
            capacity = self._executor.capacity()
        except ClusterError as error:
            log.warning("Ray does not answer, so the size of the cluster was not checked: %s", error)
            return None
        return capacity if capacity.nodes else None
