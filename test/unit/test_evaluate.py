"""Evaluation of datasets: scores by hand with a method that answers from a list, continuing, and one run with real models."""

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from decaf_ros.cli import evaluate as command
from decaf_ros.evaluation.datasets import DatasetVideo, Foreground, PngMasks, ReferringExpression
from decaf_ros.evaluation.journal import Journal, JournalError, Record
from decaf_ros.evaluation.metrics import MaskScores
from decaf_ros.evaluation.runner import Prediction, evaluate
from decaf_ros.evaluation.summary import HEADER, group_means, published_rows, summary_rows
from decaf_ros.models.qwen2_5_vl import Qwen25Vl
from decaf_ros.outputs import OutputFolder
from decaf_ros.video import FrameSource

SIZE_HW = (40, 60)
FRAMES = 4
LEFT, RIGHT = np.zeros((2, *SIZE_HW), dtype=bool)
LEFT[10:30, 10:20] = True
RIGHT[10:30, 40:50] = True
NOTHING = np.zeros(SIZE_HW, dtype=bool)


class ListedSegmenter:
    """Gives each sentence its masks; key frames are the first and the last one."""

    def __init__(self, masks: dict[str, np.ndarray], coarse: dict[str, np.ndarray] | None = None) -> None:
        self.masks = masks
        self.coarse = coarse or masks
        self.asked: list[tuple[str, float]] = []

    def __call__(self, source: FrameSource, expression: str) -> Prediction:
        if expression not in self.masks:
            raise KeyboardInterrupt
        self.asked.append((expression, source.frames_per_second))
        coarse = np.stack([self.coarse[expression]] * 2)
        return Prediction((0, FRAMES - 1), coarse, iter([self.masks[expression]] * FRAMES), "thing", confident=True)


@pytest.fixture
def videos(tmp_path) -> list[DatasetVideo]:
    """Two videos with two sentences each: "left" and "right", in which the right object has left on the last frame."""
    return [make_video(tmp_path / name, name) for name in ("a", "b")]


def make_video(folder: Path, name: str) -> DatasetVideo:
    (folder / "masks").mkdir(parents=True)
    images, masks = [], []
    for frame in range(FRAMES):
        images.append(folder / f"{frame:05d}.jpg")
        cv2.imwrite(str(images[-1]), np.zeros((*SIZE_HW, 3), dtype=np.uint8))
        masks.append(folder / "masks" / f"{frame:05d}.png")
        cv2.imwrite(str(masks[-1]), LEFT + 2 * (RIGHT & (frame < FRAMES - 1)).astype(np.uint8))
    sentences = [
        ReferringExpression(str(index), text, category, PngMasks(masks, index + 1))
        for index, (text, category) in enumerate([("left", "referring"), ("right", "reasoning")])
    ]
    return DatasetVideo(name, tuple(images), tuple(sentences))


def journal(tmp_path: Path) -> Journal:
    return Journal(OutputFolder(tmp_path / "out"), {"dataset": "tiny"})


def run(videos: Sequence[DatasetVideo], segmenter: ListedSegmenter, kept: Journal, **options) -> list[Record]:
    return list(evaluate(videos, "full method", segmenter, kept, key_frames=2, **options))


class TestScores:
    def test_perfect_masks_score_1_and_empty_ones_0_where_the_object_is_seen(self, tmp_path, videos):
        segmenter = ListedSegmenter({"left": LEFT, "right": NOTHING}, coarse={"left": NOTHING, "right": RIGHT})
        left, right = run(videos[:1], segmenter, journal(tmp_path))
        assert (left.masks.j, left.masks.f) == (1.0, 1.0)
        assert (left.coarse.j, left.coarse.f) == (0.0, 0.0)
        assert (right.masks.j, right.masks.f) == (0.25, 0.25)  # right on the one frame of four without the object
        assert (right.coarse.j, right.coarse.f) == (0.5, 0.5)  # key frames: the first, which shows it, and the last

    def test_overlap_is_that_of_the_right_frames(self, tmp_path, videos):
        half = LEFT.copy()
        half[20:] = False
        (left, _) = run(videos[:1], ListedSegmenter({"left": half, "right": NOTHING}), journal(tmp_path))
        assert left.masks.j == pytest.approx(0.5)
        assert left.masks.f < 1.0

    def test_key_frames_are_half_a_second_apart(self, tmp_path, videos):
        segmenter = ListedSegmenter({"left": LEFT, "right": RIGHT})
        run(videos, segmenter, journal(tmp_path))
        assert [text for text, _ in segmenter.asked] == ["left", "right"] * 2
        assert {rate for _, rate in segmenter.asked} == {6.0}  # 3 steps between two key frames

    def test_masks_are_written_where_asked_for_and_sentences_without_truth_have_no_score(self, tmp_path, videos):
        unknown = ReferringExpression("7", "left", "", None)
        video = DatasetVideo("sub/a", videos[0].images, (unknown,))
        folder = OutputFolder(tmp_path / "written")
        (record,) = run([video], ListedSegmenter({"left": LEFT}), journal(tmp_path), mask_folder=folder)
        assert (record.masks, record.coarse, record.there, record.found) == (None, None, None, True)
        for frame in range(FRAMES):
            written = cv2.imread(str(tmp_path / f"written/sub/a/7/{frame:05d}.png"), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(written, LEFT * np.uint8(255))


class TestNothingThere:
    """The sentence "right" is about a video in which the right object was never seen."""

    @pytest.fixture
    def absent(self, videos) -> DatasetVideo:
        (video, _) = videos
        for path in video.expressions[1].truth.paths:
            cv2.imwrite(str(path), LEFT.astype(np.uint8))
        changes = np.flatnonzero(np.diff(LEFT.T.ravel(), prepend=False))
        mask = {"size": list(SIZE_HW), "counts": np.diff([0, *changes, LEFT.size]).tolist()}
        return replace(video, foreground=Foreground([[mask, mask]] * FRAMES, Path("all")))

    def test_what_is_claimed_and_what_is_refused(self, tmp_path, absent):
        left, right = run([absent], ListedSegmenter({"left": LEFT, "right": NOTHING}), journal(tmp_path))
        assert [(each.there, each.found, each.robustness) for each in (left, right)] == [(True, True, 1.0), (False, False, 1.0)]
        assert right.masks.j_and_f == 1.0
        half = RIGHT.copy()
        half[20:] = False  # 100 pixels; all objects of a frame are twice the 200 of the left one
        left, right = run([absent], ListedSegmenter({"left": NOTHING, "right": half}), journal(tmp_path / "other"))
        assert [(each.there, each.found) for each in (left, right)] == [(True, False), (False, True)]
        assert (left.robustness, right.robustness) == (1.0, 0.75)
        assert right.masks.j_and_f == 0.0

    def test_one_frame_that_shows_it_is_enough(self, tmp_path, videos):
        masks = iter([NOTHING, NOTHING, LEFT, NOTHING])

        def late(source: FrameSource, expression: str) -> Prediction:
            return Prediction((0,), NOTHING[None], masks, "", confident=False, presence=0.25)

        (record,) = run([replace(videos[0], expressions=videos[0].expressions[:1])], late, journal(tmp_path))
        assert (record.found, record.there, record.presence, record.robustness) == (True, True, 0.25, None)


class TestContinuing:
    def test_an_interrupted_run_goes_on_with_what_is_missing(self, tmp_path, videos):
        first = ListedSegmenter({"left": LEFT})  # interrupted at the second sentence
        with pytest.raises(KeyboardInterrupt):
            run(videos, first, journal(tmp_path))
        second = ListedSegmenter({"left": LEFT, "right": RIGHT})
        continued = journal(tmp_path)
        assert len(run(videos, second, continued)) == 3
        assert [text for text, _ in second.asked] == ["right", "left", "right"]
        again = journal(tmp_path)
        assert again.records == continued.records
        assert len(again.records) == 4
        assert run(videos, second, again) == []

    def test_a_half_written_line_is_cut_off_and_computed_anew(self, tmp_path, videos):
        segmenter = ListedSegmenter({"left": LEFT, "right": RIGHT})
        run(videos, segmenter, journal(tmp_path))
        path = tmp_path / "out" / "results.jsonl"
        whole = path.read_bytes()
        for lost in (1, 30):
            path.write_bytes(whole[:-lost])
            (anew,) = run(videos, segmenter, journal(tmp_path))
            assert (anew.video, anew.expression) == ("b", "right")
            assert len(journal(tmp_path).records) == 4
        path.write_bytes(whole[:5])  # interrupted at the very first line
        assert journal(tmp_path).records == {}
        assert json.loads(path.read_text()) == {"settings": {"dataset": "tiny"}}

    def test_variants_are_kept_apart(self, tmp_path, videos):
        segmenter = ListedSegmenter({"left": LEFT, "right": RIGHT})
        kept = journal(tmp_path)
        run(videos, segmenter, kept)
        assert len(list(evaluate(videos, "video path only", segmenter, kept))) == 4
        assert len(journal(tmp_path).records) == 8

    def test_other_settings_and_damage_are_refused(self, tmp_path, videos):
        run(videos, ListedSegmenter({"left": LEFT, "right": RIGHT}), journal(tmp_path))
        path = tmp_path / "out" / "results.jsonl"
        with pytest.raises(JournalError, match="dataset was 'tiny', now 'large'"):
            Journal(OutputFolder(path.parent), {"dataset": "large"})
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], lines[1], "{broken", lines[3]]) + "\n")
        with pytest.raises(JournalError, match=r"results\.jsonl, line 3 is damaged"):
            journal(tmp_path)


LINE: dict[str, Any] = {
    **{name: name for name in ("variant", "video", "expression_id", "expression", "category", "object_name")},
    **{"confident": True, "seconds": 1.5, "coarse": {"j": 0.5, "f": 0.25}, "masks": None},
    **{"found": False, "there": None, "presence": 0.5, "robustness": None},
}


class TestJournal:
    def test_a_line_is_a_record(self, tmp_path):
        (read,) = self._journal(tmp_path, LINE).records.values()
        assert (read.key, read.coarse, read.masks) == (("variant", "video", "expression_id"), MaskScores(0.5, 0.25), None)
        assert (read.found, read.there, read.presence, read.robustness) == (False, None, 0.5, None)

    @pytest.mark.parametrize(
        ("name", "value", "cause"),
        [
            ("video", 7, "7 is no text"),
            ("video", None, "null is no text"),
            ("category", ["referring"], "a list is no text"),
            ("expression", "\ud800", "surrogates not allowed"),
            ("confident", 1, "1 is neither true nor false"),
            ("seconds", "1", "'1' is no number"),
            ("seconds", True, "true is no number"),
            ("seconds", 10**400, "too large"),
            ("masks", 0.5, "0.5 is no pair of scores"),
            ("masks", {"j": 0.5}, "missing 1 required"),
            ("masks", {"j": 0.5, "f": 0.5, "g": 0.5}, "unexpected keyword"),
            ("masks", {"j": 0.5, "f": [0.5]}, "a list is no number"),
            ("masks", {"j": 50, "f": 0.5}, "the scores 50 and 0.5 do not lie between 0 and 1"),
            ("masks", {"j": -0.5, "f": 0.5}, "the scores -0.5 and 0.5 do not lie between 0 and 1"),
            ("found", None, "null is neither true nor false"),
            ("there", 1, "1 is neither true nor false"),
            ("presence", 1.5, "1.5 does not lie between 0 and 1"),
            ("robustness", "1", "'1' is no number"),
        ],
    )
    def test_what_is_none_is_named_with_its_line(self, tmp_path, name, value, cause):
        with pytest.raises(JournalError, match=rf"results\.jsonl, line 3 is no record: .*{re.escape(cause)}.*Delete the line"):
            self._journal(tmp_path, LINE, LINE | {"video": "other"} | {name: value})

    def test_a_field_that_is_missing_is_named(self, tmp_path):
        with pytest.raises(JournalError, match="line 2 is no record: it lacks 'masks'"):
            self._journal(tmp_path, {name: value for name, value in LINE.items() if name != "masks"})

    def test_a_sentence_has_one_line(self, tmp_path):
        with pytest.raises(JournalError, match="line 4 is about the same sentence as line 2"):
            self._journal(tmp_path, LINE, LINE | {"video": "other"}, LINE | {"seconds": 2.0})

    @pytest.mark.parametrize("content", ["precious", "precious\n", "[1]\n", '{"settings": 5}\n', '{"settings"', '{"a": 1}\n'])
    def test_a_file_of_somebody_else_is_left_alone(self, tmp_path, content):
        path = tmp_path / "results.jsonl"
        path.write_text(content)
        if content == '{"settings"':  # the beginning of our own
            Journal(OutputFolder(tmp_path), {})
            return
        with pytest.raises(JournalError, match=r"results\.jsonl does not begin with the settings of an evaluation"):
            Journal(OutputFolder(tmp_path), {})
        assert path.read_text() == content

    def test_numbers_that_are_none_are_null_and_come_back(self, tmp_path):
        nan = float("nan")
        kept = Journal(OutputFolder(tmp_path), {})
        kept.add(Record("a", "b", "c", "d", "", "", True, nan, MaskScores(nan, 0.5), None))
        (_, line) = (tmp_path / "results.jsonl").read_text().splitlines()
        assert json.loads(line, parse_constant=pytest.fail)["coarse"] == {"j": None, "f": 0.5}
        (read,) = Journal(OutputFolder(tmp_path), {}).records.values()
        assert [math.isnan(number) for number in (read.seconds, read.coarse.j, read.coarse.f)] == [True, True, False]

    def _journal(self, tmp_path: Path, *lines: Any) -> Journal:
        written = [{"settings": {}}, *lines]
        (tmp_path / "results.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in written))
        return Journal(OutputFolder(tmp_path), {})


def record(category: str, coarse: float, masks: float, variant: str = "full method") -> Record:
    scores = MaskScores(coarse, coarse), MaskScores(masks - 0.1, masks + 0.1)
    return Record(variant, "a", "0", "left", category, "thing", True, 1.0, *scores)


class TestSummary:
    def test_without_groups_every_sentence_counts_alike(self):
        means = group_means([record("", 0.2, 0.5), record("", 0.4, 0.8), record("", 0.6, 0.8)])
        assert list(means) == ["overall"]
        overall = means["overall"]
        assert overall.count == 3
        assert (overall.coarse.j, overall.masks.j_and_f) == pytest.approx((0.4, 0.7))
        assert (overall.masks.j, overall.masks.f) == pytest.approx((0.6, 0.8))

    def test_groups_have_their_own_means(self):
        means = group_means([record("first", 0.2, 0.5), record("first", 0.4, 0.7), record("second", 0.3, 0.3)])
        assert {name: each.masks.j_and_f for name, each in means.items()} == pytest.approx(
            {"overall": 0.5, "first": 0.6, "second": 0.3}
        )

    def test_revos_weighs_its_two_groups_alike_and_leaves_out_the_third(self):
        groups = [record("referring", 0.1, 0.2), record("referring", 0.1, 0.4), record("referring", 0.1, 0.6)]
        groups += [record("reasoning", 0.3, 0.8), record("hallucination", 0.9, 0.1)]
        overall = group_means(groups, overall_of=("referring", "reasoning"))["overall"]
        assert overall.count == 4
        assert (overall.coarse.j, overall.masks.j_and_f) == pytest.approx((0.2, 0.6))

    def test_sentences_about_nothing_count_where_they_are_refused_and_in_no_overall_score_of_revos(self):
        def asked(category: str, there: bool, found: bool, robustness: float) -> Record:
            return replace(record(category, 0.5, 0.5), there=there, found=found, robustness=robustness)

        records = [
            asked("referring", True, True, 0.9),
            asked("referring", True, True, 0.7),
            asked("reasoning", True, False, 0.4),
        ]
        records += [asked("hallucination", False, found, float(not found)) for found in (True, True, True, False)]
        means = group_means(records, overall_of=("referring", "reasoning"))
        assert {name: (each.found, each.refused) for name, each in means.items()} == {
            "overall": (pytest.approx(2 / 3), 0.25),
            "hallucination": (None, 0.25),
            "reasoning": (0.0, None),
            "referring": (1.0, None),
        }
        assert {name: each.robustness for name, each in means.items()} == pytest.approx(
            {"overall": 0.6, "hallucination": 0.25, "reasoning": 0.4, "referring": 0.8}
        )
        row = dict(zip(HEADER, summary_rows("revos", records, ("referring", "reasoning"))[0], strict=True))
        assert [row[name] for name in ("R", "present: found", "absent: refused")] == ["60.0", "66.7", "25.0"]

    def test_what_others_publish_is_marked_and_stands_for_its_dataset_alone(self):
        rows = [dict(zip(HEADER, row, strict=True)) for row in published_rows("reasonvos")]
        assert {row["group"] for row in rows} == {"published, not run"}
        assert [(row["variant"], row["paper: J&F"]) for row in rows][:2] == [
            ("AgentRVOS, SAM 3, GPT-5", "75.5"),
            ("AgentRVOS, SAM 3, Qwen3-VL-8B", "68.6"),
        ]
        assert all(not row[name] for row in rows for name in HEADER[2:-1])
        assert published_rows("ref-davis17") == []

    def test_rows_are_in_percent_beside_the_papers_figures(self):
        rows = summary_rows("ref-davis17", [record("", 0.25, 0.5), record("", 0.25, 0.5, "rollout: max")])
        assert [dict(zip(HEADER, row, strict=True)) for row in rows] == [
            {
                "variant": variant,
                "group": "overall",
                "expressions": "1",
                **dict.fromkeys(("coarse J", "coarse F", "coarse J&F"), "25.0"),
                **{"J": "40.0", "F": "60.0", "J&F": "50.0"},
                **{"R": "", "present: found": "", "absent: refused": ""},
                "paper: coarse J&F": coarse,
                "paper: J&F": masks,
            }
            for variant, coarse, masks in (("full method", "25.3", "75.2"), ("rollout: max", "", "72.9"))
        ]

    def test_without_ground_truth_there_is_no_row(self):
        unscored = Record("full method", "a", "0", "left", "", "thing", True, 1.0, None, None)
        assert summary_rows("ref-youtube-vos", [unscored]) == []


MEVIS_HW = (192, 256)


@pytest.fixture
def mevis(tmp_path) -> Path:
    """One video of a red disc that moves over noise as MeViS, with a sentence about it."""
    folder = tmp_path / "mevis" / "valid_u"
    (folder / "JPEGImages" / "clip").mkdir(parents=True)
    noise, masks = np.random.default_rng(0), []
    for index in range(3):
        image = noise.integers(90, 160, (*MEVIS_HW, 3), dtype=np.uint8)
        disc = cv2.circle(np.zeros(MEVIS_HW, np.uint8), (80 + 20 * index, 90), 30, 1, cv2.FILLED).astype(bool)
        image[disc] = (30, 30, 220)  # BGR
        cv2.imwrite(str(folder / f"JPEGImages/clip/{index:05d}.jpg"), image)
        columns = disc.T.reshape(-1)
        changes = np.flatnonzero(np.diff(columns, prepend=False))
        masks.append({"size": list(MEVIS_HW), "counts": np.diff([0, *changes, columns.size]).tolist()})
    expression = {"exp": "the red ball", "obj_id": [0], "anno_id": [5]}
    video = {"frames": ["00000", "00001", "00002"], "expressions": {"0": expression, "1": expression}}
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": {"clip": video}}))
    (folder / "mask_dict.json").write_text(json.dumps({"5": masks}))
    return folder.parent


class TestCommand:
    def test_from_end_to_end_with_the_embedded_models(self, mevis, tmp_path, capsys, monkeypatch):
        read, windows = Qwen25Vl._read_video, []
        monkeypatch.setattr(
            Qwen25Vl, "_read_video", lambda self, window, memory: windows.append(window) or read(self, window, memory)
        )
        out = tmp_path / "out"
        arguments = ["--dataset", "mevis", "--root", str(mevis), "--out", str(out), "--model", "embedded", "--save-masks"]
        assert command.main([*arguments, "--variants", "video-only", "--key-frames", "2", "--threads", "1"]) == 0
        with (out / "expressions.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["variant"], row["video"], row["expression_id"]) for row in rows] == [
            ("video path only", "clip", "0"),
            ("video path only", "clip", "1"),
        ]
        # The same sentence twice: nothing of the first answer may leak into the second, though the images are read once.
        assert [rows[0][name] for name in ("J", "F", "coarse J")] == [rows[1][name] for name in ("J", "F", "coarse J")]
        of_the_clip = [window for window in windows if window.frames[0].size_hw == MEVIS_HW]  # not the trial at loading
        assert len(of_the_clip) == 1
        assert 0 <= float(rows[0]["J"]) <= 100
        assert {row["presence"] for row in rows} == {""}  # it is not asked
        summary = (out / "summary.md").read_text()
        assert re.search(r"\| video path only +\| overall +\| 2 ", summary)
        assert (out / "masks/video-only/clip/0/00002.png").exists()
        printed = capsys.readouterr()
        assert summary.strip() in printed.out
        assert "2 of 2, 0:00:00 left" in printed.err
        assert command.main([*arguments, "--variants", "video-only", "--key-frames", "2"]) == 0
        assert "of" not in capsys.readouterr().err  # all is there: no model is loaded, no sentence computed

    def test_other_methods_stand_beside_it_by_their_own_names(self, mevis, tmp_path, capsys):
        out = tmp_path / "out"
        arguments = ["--dataset", "mevis", "--root", str(mevis), "--out", str(out), "--key-frames", "2", "--threads", "1"]
        assert command.main([*arguments, "--methods", "box,loc-head,tam", "--save-masks"]) == 0
        with (out / "expressions.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["variant"], row["expression_id"], row["there"]) for row in rows] == [
            (method, number, "True") for method in ("boxes", "Loc-Head", "TAM") for number in "01"
        ]
        # The same sentence twice: nothing of the first answer may leak into the second.
        assert [row["coarse J"] for row in rows[::2]] == [row["coarse J"] for row in rows[1::2]]
        assert rows[2]["object_name"] == rows[4]["object_name"] != ""
        assert re.search(r"Loc-Head: layer [2-5] head [0-3], layer", capsys.readouterr().err)
        assert {path.name for path in (out / "masks").iterdir()} == {"box", "loc-head", "tam"}
        assert "| AgentRVOS, SAM 3, GPT-5" in (out / "summary.md").read_text()
        assert command.main([*arguments, "--methods", "tam", "loc-head,box"]) == 0
        assert "of" not in capsys.readouterr().err  # all is there

    def test_what_the_model_says_is_not_there_has_no_mask(self, mevis, tmp_path):
        out = tmp_path / "out"
        arguments = ["--dataset", "mevis", "--root", str(mevis), "--out", str(out), "--key-frames", "2", "--threads", "1"]
        assert command.main([*arguments, "--variants", "video-only", "--min-presence", "1"]) == 0  # never as sure as that
        with (out / "expressions.csv").open() as file:
            (row, _) = csv.DictReader(file)
        assert 0 < float(row["presence"]) < 1
        assert (row["there"], row["found"], row["coarse J"], row["J"]) == ("True", "False", "0.0", "0.0")

    def test_a_method_that_is_none_is_named(self, mevis, tmp_path, capsys):
        with pytest.raises(SystemExit):
            command.main(["--dataset", "mevis", "--root", str(mevis), "--out", str(tmp_path), "--methods", "decaf,loc"])
        assert "'loc' is no method; there are decaf, box, both, loc-head, tam" in capsys.readouterr().err

    def test_an_interrupted_command_says_so_sums_up_and_goes_on(self, mevis, tmp_path, capsys, monkeypatch):
        configs = []

        def impatient(grounder, key_frames):
            """Finds nothing in answer to one sentence, and is interrupted at the next."""
            configs.append(grounder.config)
            answers = iter([np.zeros((3, *MEVIS_HW), dtype=bool)])

            def segment(source: FrameSource, expression: str) -> Prediction:
                masks = next(answers, None)
                if masks is None:
                    raise KeyboardInterrupt
                return Prediction((0,), masks[:1], iter(masks), "", confident=False)

            return segment

        monkeypatch.setattr(command, "load_models", lambda *_, **__: (None, None))
        monkeypatch.setattr(command, "GroundingSegmenter", impatient)
        out = tmp_path / "out"
        arguments = ["--dataset", "mevis", "--root", str(mevis), "--out", str(out), "--variants", "object-only", "frame-only"]
        assert [command.main(arguments) for _ in range(4)] == [130, 130, 0, 0]
        assert [(config.contrast, config.paths) for config in configs] == [
            (False, "both"),
            (False, "both"),
            (True, "frame"),
            (True, "frame"),
        ]
        assert "the same command goes on from here" in capsys.readouterr().err
        with (out / "summary.csv").open() as file:
            rows = [(row["variant"], row["expressions"], row["J&F"]) for row in csv.DictReader(file)]
        assert rows[:2] == [("object prompt only, no contrast", "2", "0.0"), ("frame path only", "2", "0.0")]

    @pytest.mark.parametrize(("options", "budget"), [([], 8192), (["--frame-tokens", "100"], 100)])
    def test_the_budget_of_the_frame_path_is_handed_on_and_a_wrong_one_named(
        self, mevis, tmp_path, capsys, monkeypatch, options, budget
    ):
        def refuse(arguments, options, gated):
            raise ValueError(f"frame_tokens must be other than {options.frame_tokens}")

        monkeypatch.setattr(command, "load_models", refuse)
        arguments = ["--dataset", "mevis", "--root", str(mevis), "--out", str(tmp_path / "out"), *options]
        assert command.main([*arguments, "--variants", "all"]) == 1
        assert (
            f"embedded cannot be read with these options: frame_tokens must be other than {budget}" in capsys.readouterr().err
        )

    def test_problems_are_named_and_end_with_status_1(self, mevis, tmp_path, capsys):
        arguments = ["--dataset", "mevis", "--out", str(tmp_path / "out"), "--root"]
        assert command.main([*arguments, str(tmp_path / "nowhere")]) == 1
        assert "nowhere/valid_u/meta_expressions.json is missing" in capsys.readouterr().err
        assert command.main([*arguments, str(mevis), "--model", str(tmp_path)]) == 1
        assert "does not hold a complete model" in capsys.readouterr().err
        assert (
            command.main([*arguments, str(mevis), "--tracker", str(tmp_path)]) == 1
        )  # not held back by the wrong model before
        assert str(tmp_path) in capsys.readouterr().err
