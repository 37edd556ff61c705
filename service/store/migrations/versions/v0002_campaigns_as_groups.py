"""Campaigns as groups: how many jobs of one may run at a time, and whether MLflow knows its end."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Columns are added in place: a batch would drop the table on SQLite, and jobs refer to it.
    op.add_column("campaigns", sa.Column("max_parallel", sa.Integer(), nullable=True))
    op.add_column("campaigns", sa.Column("settled", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    op.drop_column("campaigns", "settled")
    op.drop_column("campaigns", "max_parallel")
