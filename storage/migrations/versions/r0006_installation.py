"""The database's own id, so that a process can tell that it has been given another one."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("only_row", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("database_id", sa.Uuid, nullable=False, server_default=sa.text("gen_random_uuid()")),
        sa.PrimaryKeyConstraint("only_row", name="installation_pkey"),
        sa.CheckConstraint("only_row", name="installation_one_row"),
    )
    op.execute("INSERT INTO installation DEFAULT VALUES")


def downgrade() -> None:
    op.drop_table("installation")
