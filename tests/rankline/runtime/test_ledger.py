"""The ledger is read in the order of the pipeline, in the form of earlier versions, too."""

from pathlib import Path

from rankline.runtime import ledger


def test_entries_come_in_the_order_of_the_pipeline(tmp_path: Path) -> None:
    for step in reversed(ledger.ALL_STEPS):
        ledger.write_entry(tmp_path, ledger.Entry(step=step, status="done", started=1.0))
    assert tuple(ledger.read_entries(tmp_path)) == ledger.ALL_STEPS


def test_the_first_step_had_another_name_in_earlier_versions(tmp_path: Path) -> None:
    ledger.write_entry(tmp_path, ledger.Entry(step="look", status="done", started=1.0, result={"champion": "a"}))
    (entry,) = ledger.read_entries(tmp_path).values()
    assert (entry.step, entry.result) == ("resolve_inputs", {"champion": "a"})
    ledger.write_entry(tmp_path, ledger.Entry(step="resolve_inputs", status="reused", started=2.0))
    assert ledger.read_entries(tmp_path)["resolve_inputs"].status == "reused"


def test_an_unreadable_entry_is_a_failed_step(tmp_path: Path) -> None:
    (tmp_path / "ingest.json").write_text('{"step": "inge')
    entry = ledger.read_entries(tmp_path)["ingest"]
    assert (entry.status, entry.step) == ("failed", "ingest")
    assert str(tmp_path / "ingest.json") in entry.error
