"""`ais audit` on a real PostgreSQL."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from sqlalchemy import NullPool, create_engine, text

from storage import paper
from storage.audit import chain
from storage.decisions import insert_decisions
from tests.deploy.dev_stack import ais, ais_here
from tests.domain.test_accounting import a_fill
from tests.storage.builders import make_decision
from tests.venues.builders import make_paper_order


@pytest.mark.thorough
def test_totals_are_compared_with_all_records_and_made_anew(
    new_database_url: Callable[[], str], tmp_path: Path
) -> None:
    url = new_database_url()

    def audit(*arguments: str) -> tuple[int, list[str]]:
        done = ais_here("audit", "totals", *arguments, cwd=tmp_path, AIS_DATABASE_URL=url)
        return done.returncode, done.stdout.splitlines()

    assert audit() == (0, ["There is no account yet."])
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        paper.lock(connection, "main", Decimal(1_000), -1)
        paper.insert_order(connection, make_paper_order(order_id="o", desk="main", status="filled"), None, 0)
        paper.insert_fill(connection, a_fill(order_id="o", fee=3))
    assert audit() == (0, ["main (paper): the totals agree; they hold 0 of 1 records."])
    assert audit("--rebuild")[1][-1] == "The totals are rebuilt."
    with engine.begin() as connection:
        connection.execute(text("""UPDATE paper.totals SET state = state || '{"balance": "996"}'"""))
    status, told = audit("--rebuild")
    assert (status, told[0]) == (1, "main (paper): balance: 996 in the totals, 997 by all records")
    assert audit() == (0, ["main (paper): the totals agree; they hold 1 of 1 records."])


def test_a_chain_is_verified_and_the_exit_status_says_so(new_database_url: Callable[[], str], tmp_path: Path) -> None:
    url = new_database_url()

    def verify(
        *arguments: str, at: str = url, by: Callable[..., CompletedProcess[str]] = ais_here
    ) -> tuple[int, list[str]]:
        done = by("audit", "verify", *arguments, cwd=tmp_path, AIS_DATABASE_URL=at)
        return done.returncode, [*done.stdout.splitlines(), *done.stderr.splitlines()]

    assert verify() == (0, ["0 rows checked: the chain is whole."])
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        rows = insert_decisions(connection, [make_decision(decision_id=f"d{number}") for number in range(3)])
        chain.append(connection, map(chain.decision_entry, rows))
    assert verify("--desk", "main") == (0, ["main: 3 rows, the last is 3.", "3 rows checked: the chain is whole."])
    assert verify("--since", "1h")[0] == 0
    with engine.begin() as connection:
        connection.execute(text("UPDATE decisions SET summary = 'x' WHERE decision_id = 'd1'"))
    status, told = verify(by=ais)
    assert (status, told[1]) == (1, "main: CHANGED IN ITS TABLE: row 2: decision d1")
    assert verify("--desk", "other")[0] == 2
    assert verify(at="postgresql://127.0.0.1:1/none")[0] == 2


@pytest.mark.thorough
def test_a_checkpoint_is_made_and_verified_with_the_public_key_alone(
    new_database_url: Callable[[], str], tmp_path: Path
) -> None:
    url = new_database_url()

    def audit(*arguments: str, **env: str) -> tuple[int, str]:
        done = ais_here("audit", *arguments, cwd=tmp_path, AIS_DATABASE_URL=url, **env)
        return done.returncode, done.stdout or done.stderr

    key = {"AIS_AUDIT_KEY": str(tmp_path / "key.pem")}
    public_key = audit("key", **key)[1].strip()
    assert audit("key", **key)[0] == 1
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        chain.append(connection, map(chain.decision_entry, insert_decisions(connection, [make_decision()])))
    status, document = audit("checkpoint", **key)
    assert status == 0
    (tmp_path / "today.json").write_text(document)
    checked = ("verify", "--checkpoint", "today.json", "--public-key", public_key)
    assert audit(*checked)[0] == 0
    assert audit("verify", "--checkpoint", "today.json")[0] == 2
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit; DELETE FROM audit_heads; DELETE FROM decisions"))
    status, told = audit(*checked)
    assert (status, "CUT OFF AT THE END" in told) == (1, True)
