"""Limits and answers of several controllers"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


_SECONDS: sa.Double[float] = sa.Double()


def upgrade() -> None:
    op.create_table(
        "key_usage",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("tokens", _SECONDS, nullable=True),
        sa.Column("filled", _SECONDS, nullable=False),
        sa.Column("claims", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_key_usage")),
    )
    op.create_table(
        "key_answers",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("claim", sa.Text(), nullable=False),
        sa.Column("renewed", _SECONDS, nullable=False),
        sa.Column("wanted", _SECONDS, nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "key", name=op.f("pk_key_answers")),
    )
    with op.batch_alter_table("key_answers", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_key_answers_claim"), ["claim"], unique=False)
        batch_op.create_index(batch_op.f("ix_key_answers_renewed"), ["renewed"], unique=False)
