"""Tables of the store. The schema that is deployed is the Alembic history; a test holds the two equal.

campaigns 1──n jobs 1──n attempts        events: the decision log      idempotency: key -> campaign
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(100)),
    Column("labels", Text, nullable=False),
    Column("created_at", Float(53), nullable=False),
    # How many of its jobs may hold resources at one time; null: no limit.
    Column("max_parallel", Integer),
    # MLflow knows how the campaign ended.
    Column("settled", Boolean, nullable=False, server_default=false()),
    Index(None, "name"),
)

jobs = Table(
    "jobs",
    metadata,
    # The order of the queue: given once, at submission, and kept through retries.
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("campaign_id", String(40), ForeignKey("campaigns.id"), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("state", String(20), nullable=False, index=True),
    Column("why", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("parents", Text, nullable=False),
    # What `job:NAME` meant when the job was submitted: name -> id, as JSON.
    Column("job_references", Text, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("started_at", Float(53)),
    Column("finished_at", Float(53)),
    Column("run_id", String(64)),
    Column("published", Boolean, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("bytes_on_disk", BigInteger),
    Column("manifest_sha256", String(64)),
    Index(None, "name"),
    sqlite_autoincrement=True,
)

attempts = Table(
    "attempts",
    metadata,
    # The fencing token: the database never gives a number twice, and a newer attempt gets a larger one.
    Column("token", Integer, primary_key=True, autoincrement=True),
    Column("id", String(50), nullable=False, unique=True),
    Column("job_id", String(40), ForeignKey("jobs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String(20), nullable=False, index=True),
    Column("reason", String(20)),
    Column("message", Text, nullable=False),
    Column("placement", Text, nullable=False),
    Column("created_at", Float(53), nullable=False),
    # Null: Ray may or may not have heard of it.
    Column("submitted_at", Float(53)),
    Column("started_at", Float(53)),
    Column("finished_at", Float(53)),
    # Why we asked for its end (cancelled, timeout), and when Ray was last told.
    Column("stop_reason", String(20)),
    Column("stop_sent_at", Float(53)),
    Column("ray_status", String(20)),
    Column("ray_reads", Integer, nullable=False),
    Column("progress", Text),
    UniqueConstraint("job_id", "number"),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("time", Float(53), nullable=False),
    Column("job_id", String(40), ForeignKey("jobs.id"), nullable=False, index=True),
    Column("attempt_id", String(50)),
    Column("kind", String(30), nullable=False),
    Column("message", Text, nullable=False),
    sqlite_autoincrement=True,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("body_sha256", String(64), nullable=False),
    Column("campaign_id", String(40), ForeignKey("campaigns.id"), nullable=False),
    Column("created_at", Float(53), nullable=False),
)
