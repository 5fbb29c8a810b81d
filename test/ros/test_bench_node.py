"""``decaf bench --parts node``: masks and answers with each setting of ``read_ahead``, of a running node and by hand."""

from __future__ import annotations

import pytest

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")

from decaf_ros.bench.part import Run
from decaf_ros.bench.parts import node
from decaf_ros.bench.parts.node import EnduranceFigures, LatencyFigures, QueryFigures, SlowSubscriberFigures
from decaf_ros.evaluation.setups import Setup
from decaf_ros.session.stages import STAGES

FIRST_MS, SECOND_MS = dict.fromkeys(STAGES, 100.0), dict.fromkeys(STAGES, 100.0) | {"prompting": 300.0}


def test_masks_come_and_queries_are_answered_with_each_setting_of_read_ahead() -> None:
    measured = node.measure_queries(rounds=1, settling=2, quiet=3)
    assert list(measured) == ["off", "auto", "on"]
    for figures in measured.values():
        assert len(figures.quiet_ms) >= 3
        assert figures.asked_ms, "objects are followed while a query runs"
        assert all(age_ms > 0 for age_ms in (*figures.quiet_ms, *figures.asked_ms))
        assert len(figures.answers_s) == 1
        assert min(figures.stages_ms[0].values()) > 0
        assert sum(figures.stages_ms[0].values()) < 1e3 * figures.answers_s[0]
        assert 0 <= figures.share <= 1


def test_ratios_are_to_the_quiet_node_that_reads_nothing_ahead() -> None:
    queries = {
        "off": QueryFigures((10.0, 10.0), (30.0, 30.0), (2.0,), (FIRST_MS,), 0.0),
        "auto": QueryFigures((10.0, 10.0), (15.0, 15.0), (0.5, 1.5), (FIRST_MS, SECOND_MS), 0.25),
    }
    page, figures, _ = node.report(
        Run(Setup(), 500_000, 1),
        LatencyFigures(1, 1, 1, 1, 1),
        EnduranceFigures(1, 1, 1, 1, 1, 1),
        queries,
        SlowSubscriberFigures(1, (1,) * 5, (1,) * 5, 1, 1, 1),
    )
    assert (figures["queries.off_query.ratio"], figures["queries.auto_query.ratio"]) == (3.0, 1.5)
    assert figures["queries.auto_query.answer_p50_s"] == 1.0
    assert figures["queries.auto_no_query.time_share"] == 0.25
    rows = [[cell.strip() for cell in line.split("|")] for line in page.splitlines()]
    assert ["", "`auto`", "while a query runs", "15 ms", "15 ms", "1.50", "1.00 s", "1.45 s", "", ""] in rows
    assert ["", "`auto`", "100 ms", "100 ms", "100 ms", "200 ms", "100 ms", ""] in rows
