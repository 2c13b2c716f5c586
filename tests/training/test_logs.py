"""The CSV of a run."""

from __future__ import annotations

from speechjepa.training.logs import CsvLog


def test_a_resumed_run_keeps_its_rows_up_to_the_checkpoint_and_drops_later_ones(tmp_path):
    first = CsvLog(tmp_path)
    for step in range(5):
        first.log_metrics({"loss/total": 1.0 + step}, step)
    first.finalize("interrupted")
    second = CsvLog(tmp_path, resume_step=2)
    second.log_metrics({"loss/total": 9.0, "monitor/rankme": 3.0}, 3)
    second.finalize("success")
    assert second.path.read_text().splitlines() == [
        "step,loss/total,monitor/rankme",
        "0,1,",
        "1,2,",
        "2,3,",
        "3,9,3",
    ]


def test_a_new_run_does_not_take_over_old_rows(tmp_path):
    old = CsvLog(tmp_path)
    old.log_metrics({"loss/total": 1.0}, 0)
    old.save()
    assert CsvLog(tmp_path).rows == {}
