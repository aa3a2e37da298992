"""Fingerprints of commands, and commands in the carried state: records and states of other versions hold both, unchanged."""

import pytest

from domain.desk.carried import PendingDeleverage, PendingRestart
from domain.desk.payloads import RawPayload, read_command
from domain.desk.states import CommandKind

# A record compares its command's fingerprint with that of a command that comes later, perhaps to another version.
FINGERPRINTS = [
    ("kill", "", "1220b736b526a22b"),
    ("kill", '"why"', "e9d70af995aca20b"),
    ("kill", '{"reason": "é", "symbols": ["BTC"]}', "0617a3bab5b7325f"),
    ("pause", "", "ef233513d3674556"),
    ("pause", '{"sent_at": "yesterday"}', "ef233513d3674556"),
    ("resume", '{"command_id": "a", "actor": "b"}', "8fdaa9eb8f0840e9"),
    ("cancel_all", "", "92bed59ae0e46a81"),
    ("cancel_all", '{"symbols": ["btc-usdt", "ETHUSDT"], "reason": "r"}', "8d0087538205f794"),
    ("cancel_all", '{"symbols": []}', "92bed59ae0e46a81"),
    ("deleverage", '{"symbol": "BTCUSDT", "reduce_pct": 0.50}', "69d8a61a2fed1a4d"),
    ("deleverage", '{"symbol": "BTCUSDT", "reduce_pct": 1, "reason": "r"}', "dd092748950fc266"),
    ("deleverage", '{"symbol": "BTCUSDT", "reduce_pct": 0.5, "foo": 1}', "69d8a61a2fed1a4d"),
    ("deleverage", '{"symbol": "BTCUSDT"}', "f316590a23d84155"),
    ("restart", '{"kill_number": 3}', "06602b38d82f8c12"),
    ("restart", '{"kill_number": 3, "database_id": "d"}', "6b86413814f6be91"),
    (
        "restart",
        '{"kill_number": 3, "database_id": "d", "symbols": ["BTCUSDT"], "cycle_seconds": 1, "mode": "live", '
        '"kill_flattens": false}',
        "e0a190bf5c374124",
    ),
    ("restart", '{"kill_number": true}', "dcbefad2d1d5397e"),
    ("set_limits", '{"limits": {"max_leverage": 1.50}}', "bfb46b38c836b4f3"),
    ("set_limits", '{"max_leverage": "2", "limits": {"max_drawdown": 0.1}}', "15c44446700ebd20"),
    ("set_limits", "{}", "15c44446700ebd20"),
    ("propose", '{"agent_id": "a", "symbol": "btc/usdt", "side": "buy", "confidence": 0.8}', "f7931ca22e6d1f41"),
    (
        "propose",
        '{"agent_id": "a", "symbol": "BTCUSDT", "side": "SELL", "confidence": 0.8, "price": "100.50", "post_only": true}',
        "52627b8f82249a60",
    ),
    ("propose", '{"agent_id": "a"}', "aa984e5b2b3b09c6"),
]


@pytest.mark.parametrize(("kind", "text", "fingerprint"), FINGERPRINTS)
def test_a_command_keeps_its_fingerprint(kind: str, text: str, fingerprint: str) -> None:
    command = read_command(CommandKind(kind), [RawPayload("json/plain", text.encode())], "f")
    assert command.fingerprint == fingerprint


def test_a_deleverage_of_an_older_run_is_read() -> None:
    text = """{"command": {"command_id": "d", "kind": "deleverage", "actor": "http", "reason": "", "source": "operator",
        "sent_at": null, "symbols": null, "symbol": "BTCUSDT", "reduce_pct": "0.5", "kill_number": null, "database_id": null,
        "terms": null, "limits": null, "proposal": null, "problem": null, "named": true},
        "symbol": "BTCUSDT", "reduce_pct": "0.5", "order_id": null, "automatic": false, "quantity": null}"""
    pending = PendingDeleverage.model_validate_json(text)
    assert pending.command.fingerprint == "69d8a61a2fed1a4d"


def test_a_reduction_of_an_older_run_is_read_whose_command_has_no_fraction() -> None:
    text = """{"command": {"command_id": "d", "kind": "deleverage", "actor": "risk", "reason": "past the soft limit",
        "source": "risk", "symbol": "BTCUSDT", "reduce_pct": null},
        "symbol": "BTCUSDT", "reduce_pct": "1", "automatic": true, "quantity": "0.25"}"""
    pending = PendingDeleverage.model_validate_json(text)
    assert (pending.command.command_id, pending.automatic) == ("d", True)


def test_a_restart_of_an_older_run_is_read() -> None:
    text = """{"command": {"command_id": "r", "kind": "restart", "actor": "cli", "reason": "", "source": "operator",
        "sent_at": null, "symbols": null, "symbol": null, "reduce_pct": null, "kill_number": 3, "database_id": "d",
        "terms": {"mode": null, "symbols": ["BTCUSDT"], "cycle_seconds": null, "kill_flattens": null}, "limits": null,
        "proposal": null, "problem": null, "named": true},
        "kill_number": 3, "kill_id": "decision_1", "row": {"decision_id": "decision_2", "desk": "main",
        "timestamp": "2026-03-12T14:30:00Z", "decision_type": "control", "summary": "restart applied by cli"}}"""
    pending = PendingRestart.model_validate_json(text)
    assert pending.command.terms
    assert pending.command.terms.symbols == ["BTCUSDT"]
