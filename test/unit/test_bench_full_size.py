"""``decaf bench --parts full-size`` at tiny sizes: every kind of row comes, and what fails or takes too long says so."""

from __future__ import annotations

import pytest
import torch
from pretend_cuda import pretend_cuda

from decaf_ros.bench.model_sizes import MLLMS, Dimensions
from decaf_ros.bench.part import Run
from decaf_ros.bench.parts import full_size
from decaf_ros.bench.parts.full_size import Scale, agreement_rows, frame_rows, query_rows, report, works
from decaf_ros.bench.reference.tiny_qwen2_5_vl import random_window
from decaf_ros.bench.timetable import NO_TIME
from decaf_ros.cli.main import main
from decaf_ros.evaluation.setups import Setup

TRACKER = "facebook/sam2.1-hiera-tiny"
TINY = Dimensions(
    "qwen2_5_vl",
    {
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 96,
        "vocab_size": 64,
    },
    {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 48,
        "out_hidden_size": 256,
        "fullatt_block_indexes": [1],
    },
    tied=True,
    tokens=(16, 64),
    frames_a_step=2,
)
SCALE = Scale(key_frames=2, queries=1, frames=2, batch_tokens=128, image_size=64, video_tokens=16, hz=1000.0)
RUN = Run(Setup(), 500_000, 1)


def test_a_query_by_part_and_frames_beside_it() -> None:
    rows = list(query_rows("tiny", TINY, TRACKER, SCALE, "cpu", with_frames=True))
    assert not [row.failure for row in rows if row.failure]
    (work, *_) = works({"tiny": TINY}, [TRACKER], SCALE, "cpu")
    assert [(row.table, row.name) for row in rows] == list(work.rows)
    queries = [row.values for row in rows if row.table == "query"]
    for values in queries:
        parts = [values[column.key] for column in full_size.QUERY[:-3]]
        assert all(part > 0 for part in parts)
        assert sum(parts) <= values["p50_s"]
    assert [values.get("read_ahead_s", 0) > 0 for values in queries] == [False, False, True]
    beside = [row.values for row in rows if row.table == "beside"]
    assert all(values["ratio"] == values["beside_ms"] / values["alone_ms"] for values in beside)
    page = report(RUN, SCALE, rows).page
    assert "| tiny, warm" in page
    assert "| tracker like others, batch_tokens 128 |" in page


def test_on_a_gpu_nothing_is_on_two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("reset_peak_memory_stats", "memory_allocated", "max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    with pretend_cuda():
        query = next(query_rows("tiny", TINY, TRACKER, SCALE, "cuda", with_frames=False))
        rollout = next(agreement_rows(SCALE, "cuda"))
    assert (query.failure, rollout.failure) == ("", "")
    assert rollout.values["difference"] <= 1e-4


def test_a_tracked_frame_beside_sam2s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size, "OBJECTS", (2,))
    monkeypatch.setattr(full_size, "WARM_UP_FRAMES", 2)
    [row] = frame_rows(TRACKER, SCALE, "cpu")
    assert not row.failure
    assert row.values["ratio"] == row.values["ours_ms"] / row.values["sam2_ms"]


def test_what_is_computed_in_float32_on_the_cpu_agrees_with_itself() -> None:
    rollout, single, half = agreement_rows(SCALE, "cpu")
    assert rollout.values["difference"] <= 1e-4
    assert (single.values["difference"], single.values["iou"]) == (0, 1)
    assert 0 < half.values["difference"] < 0.5


def test_a_row_that_fails_costs_no_other_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size, "_rollout_against_plain", lambda scale, device: 1 / 0)
    monkeypatch.setattr(full_size, "_looked_at", lambda device, dtype: (torch.ones(3), []))
    failed, *others = agreement_rows(SCALE, "cpu")
    assert failed.failure == "failed: ZeroDivisionError: division by zero"
    assert [row.values["difference"] for row in others] == [0, 0]
    measured = report(RUN, SCALE, [failed, *others])
    assert "| failed: ZeroDivisionError: division by zero |" in measured.page
    assert {name.partition(".")[2] for name in measured.figures} == {
        f"embedded_models_{dtype}.{key}" for dtype in ("float32", "bfloat16") for key in ("difference", "iou")
    }


def test_a_query_that_fails_beside_the_tracker_is_told() -> None:
    class Broken:
        def attend(self, window, expression):
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"), full_size._queries(Broken(), random_window(1, (8, 8))):
        pass


def test_without_time_every_row_is_named_the_most_telling_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--parts", "full-size", "--minutes", "0"]) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert lines[0] == f"query: Qwen/Qwen2.5-VL-7B-Instruct, cache off: {NO_TIME}"
    assert "beside: tracker first, batch_tokens 1600: " in lines[4]
    first_frame = next(line for line in lines if line.startswith("frame"))
    assert first_frame == f"frame: facebook/sam2.1-hiera-large, objects: 1: {NO_TIME}"
    known = [name for name, model in MLLMS.items() if model.model_type in ("qwen2_vl", "qwen2_5_vl")]
    assert all(f"| {name}, warm" in out for name in known)
