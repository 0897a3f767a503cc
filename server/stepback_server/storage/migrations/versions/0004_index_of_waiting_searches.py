"""Index of waiting searches"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    is_waiting = sa.text("batch IS NULL AND state = 'queued'")
    op.create_index(
        op.f("ix_jobs_model_tenant_number"),
        "jobs",
        ["model", "tenant", "number"],
        unique=False,
        sqlite_where=is_waiting,
        postgresql_where=is_waiting,
    )
