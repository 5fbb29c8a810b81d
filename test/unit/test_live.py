"""Sentences asked while a video plays: when answers and masks come, by hand, with models that see a white square at once."""

import csv
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_evaluate import mevis  # noqa: F401

from decaf_ros.cli import evaluate as command
from decaf_ros.config import GroundingConfig, SessionConfig
from decaf_ros.datatypes import Frame
from decaf_ros.evaluation.journal import Journal, JournalError, LiveScores, Record
from decaf_ros.evaluation.live import AskAt, LiveAnswer, LiveAsker, live_means, score_live
from decaf_ros.evaluation.metrics import MaskScores
from decaf_ros.evaluation.replay import Latency
from decaf_ros.evaluation.summary import LIVE_HEADER, live_rows
from decaf_ros.models.errors import PromptError
from decaf_ros.models.protocols import TrackOutput
from decaf_ros.outputs import OutputFolder
from decaf_ros.session.stages import StageClock
from decaf_ros.video import FramesInMemory, VideoError

HZ, FRAMES = 10.0, 40
SIZE_HW = (6, 8)


def white(frame: Frame) -> np.ndarray:
    return frame.image_rgb[..., 0] == 255


class Seeing:
    """A tracker, of whose every track the mask is what is white."""

    def encode(self, frame: Frame) -> Frame:
        return frame

    def step(self, tracks: Sequence[object], features: Frame) -> list[TrackOutput]:
        return [TrackOutput(white(features), float(white(features).any())) for _ in tracks]

    def appearance(self, features: Frame, mask_hw: np.ndarray) -> torch.Tensor:
        return torch.ones(2)


class Pointing:
    """A grounder that finds what is white on the newest frame; ``meanwhile`` runs while it works."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None, presence: float = math.nan) -> None:
        self.attention, self.tracker, self.config = self, Seeing(), GroundingConfig(min_presence=0.5)
        self.meanwhile = meanwhile
        self.presence = presence

    def ground(self, clip: Sequence, expression: str, clock: StageClock, grounder: str | None = None) -> SimpleNamespace:
        self.meanwhile()
        mask = white(clip[-1].frame)
        objects = [SimpleNamespace(score=1.0, tracklets=[SimpleNamespace(masks_thw=[mask])])] * int(mask.any())
        attention = SimpleNamespace(object_name="square", heat_thw=torch.ones(1, 1, 1), presence=self.presence)
        found = SimpleNamespace(objects=objects, attention=attention, confident=True, grounder="decaf", guess=None)
        found.doubted = self.presence < self.config.min_presence
        return found

    def build_tracks(self, grounding: SimpleNamespace, *_: object) -> list[object]:
        return [object() for _ in grounding.objects]

    def appearances(self, grounding: SimpleNamespace, *_: object) -> list[torch.Tensor]:
        return [torch.ones(2) for _ in grounding.objects]


class Film(FramesInMemory):
    """Four seconds at 10 Hz; a square is white on some of the frames. It is its own ground truth."""

    def __init__(self, seen_on: Sequence[int] = range(FRAMES)) -> None:
        frames = []
        for index in range(FRAMES):
            image = np.zeros((*SIZE_HW, 3), dtype=np.uint8)
            image[2:4, 2:5] = 255 * (index in seen_on)
            frames.append(Frame(round(index / HZ * 1e9), "camera", image))
        super().__init__(frames, HZ)

    def truth(self) -> SimpleNamespace:
        return SimpleNamespace(read=lambda frame, size_hw: white(self.read(frame, frame + 1)[0]))


def ask(
    film: FramesInMemory, asked_s: float, query_s: float | None, grounder: Pointing | None = None, text: str = "the square"
) -> LiveAnswer:
    grounder = grounder or Pointing()
    latency = None if query_s is None else Latency(query_s, 0.0, 0.0)
    return LiveAsker(grounder.tracker, grounder, SessionConfig(refresh_hz=0.0), latency)(film, text, asked_s)


def told(film: Film, answer: LiveAnswer) -> tuple[MaskScores, LiveScores]:
    scores, live = score_live(answer, FRAMES, film.truth())
    assert scores.masks is not None
    return scores.masks, live


class TestTiming:
    @pytest.mark.parametrize(
        ("asked_s", "query_s", "asked_frame", "answered_frame"),
        [
            (1.0, 1.0, 10, 20),
            (1.0, 1.5, 10, 25),  # by exactly half a second later
            (1.0, 0.25, 10, 12),  # between two frames: about the one before
            (1.07, 0.25, 10, 13),  # asked between two frames, answered at 1.32 s
            (1.0, 0.0, 10, 10),
            (0.0, 0.1, 0, 1),
            (2.3, 1.6, 23, 39),  # on the last frame
        ],
    )
    def test_the_answer_and_the_first_mask_come_when_the_query_has_taken_its_time(
        self, asked_s, query_s, asked_frame, answered_frame
    ):
        film = Film()
        answer = ask(film, asked_s, query_s)
        assert (answer.asked_frame, answer.answered_frame, answer.refusal) == (asked_frame, answered_frame, "")
        assert (answer.object_name, answer.confident) == ("square", True)
        masks = list(answer.masks)
        assert [each.frame for each in masks] == list(range(answered_frame, FRAMES))
        assert [each.after_s for each in masks[1:]] == pytest.approx(
            [index / HZ - asked_s for index in range(answered_frame + 1, FRAMES)]
        )
        scores, live = told(film, ask(film, asked_s, query_s))
        assert (live.answer_s, live.first_mask_s) == (query_s, query_s)
        assert live.without_answer == (answered_frame - asked_frame) / (FRAMES - asked_frame)
        assert (scores.j, scores.f) == (1.0, 1.0)

    def test_what_comes_after_the_question_is_not_looked_at(self):
        """Asked before the object comes: nothing is found, and the masks from the answer on are empty."""
        film = Film(seen_on=range(15, FRAMES))  # it comes while the query runs
        answer = ask(film, 1.0, 1.0)
        assert "nothing was found for 'the square'" in answer.refusal
        scores, live = told(film, answer)
        assert (live.answer_s, live.without_answer) == (1.0, 10 / 30)
        assert math.isnan(live.first_mask_s)
        assert (scores.j, scores.f) == (0.0, 0.0)
        late = Film(seen_on=range(25, FRAMES))  # on 5 of the 20 frames from the answer on, nothing is right
        scores, _ = told(late, ask(late, 1.0, 1.0))
        assert (scores.j, scores.f) == (0.25, 0.25)
        scores, live = told(late, ask(late, 2.5, 0.5))
        assert (scores.j, live.first_mask_s) == (1.0, 0.5)

    def test_an_object_that_is_out_of_sight_when_the_answer_comes_has_its_first_mask_when_it_is_back(self):
        film = Film(seen_on=[*range(18), *range(23, FRAMES)])
        scores, live = told(film, ask(film, 1.0, 1.0))
        assert (live.answer_s, live.first_mask_s) == (1.0, 1.3)
        assert scores.j == 1.0

    @pytest.mark.parametrize("query_s", [3.0, 50.0])
    def test_a_video_that_is_over_before_the_answer_counts_from_the_question_on(self, query_s):
        film = Film(seen_on=range(34))
        scores, live = told(film, ask(film, 1.0, query_s))
        assert math.isnan(live.answer_s)
        assert math.isnan(live.first_mask_s)
        assert live.without_answer == 1.0
        assert (scores.j, scores.f) == (0.2, 0.2)  # the last 6 of 30 frames show nothing
        _, live = told(film, ask(film, 1.0, 2.99))
        assert (live.answer_s, live.without_answer) == (2.99, 29 / 30)

    @pytest.mark.parametrize("text", ["the square", "a <tag>\nof two lines"])
    def test_a_sentence_that_is_refused_has_empty_masks_from_then_on(self, text):
        def refuse() -> None:
            raise PromptError("the prompt holds '<|im_end|>'")

        film = Film()
        answer = ask(film, 1.0, 0.5, Pointing(refuse), text)
        at_once = "\n" in text  # by the engine, before any model
        assert answer.answered_frame == (10 if at_once else 15)
        assert ("cannot be printed" if at_once else "im_end") in answer.refusal
        scores, live = told(film, answer)
        assert scores.j == 0.0
        assert live.without_answer == (0.0 if at_once else 5 / 30)

    def test_presence_is_told_whether_it_was_enough_or_not_and_doubt_is_right_where_nothing_is_to_be_seen(self):
        def claims(seen_on: Sequence[int], presence: float) -> tuple[float | None, bool, bool | None, float | None]:
            film = Film(seen_on)
            answer = ask(film, 1.0, 1.0, Pointing(presence=presence))
            scores, _ = score_live(answer, FRAMES, film.truth(), SimpleNamespace(pixels=lambda frame, size_hw: 12))
            return answer.presence, scores.found, scores.there, scores.robustness

        assert claims(range(FRAMES), 0.75) == (0.75, True, True, 1.0)
        assert claims(range(FRAMES), 0.25) == (0.25, False, True, 1.0)
        assert claims(range(FRAMES), math.nan) == (None, True, True, 1.0)  # not asked
        assert claims(range(20), 0.25) == (0.25, False, False, 1.0)  # gone when the answer comes

    def test_what_it_takes_can_be_measured(self, monkeypatch):
        now = [100.0]
        monkeypatch.setattr(time, "perf_counter", lambda: now[0])

        def work() -> None:
            now[0] += 0.75

        answer = ask(Film(), 1.0, None, Pointing(work))
        assert (answer.answered_frame, answer.answer_s) == (17, 0.75)


class TestTrouble:
    """What is no answer of the node ends the evaluation, and is not scored."""

    def test_a_frame_that_cannot_be_read_while_the_query_runs(self):
        class Broken(Film):
            def read(self, start: int, stop: int) -> list[Frame]:
                if start == 15:
                    raise VideoError("00015.jpg cannot be decoded")
                return super().read(start, stop)

        with pytest.raises(VideoError, match=r"00015\.jpg"):
            ask(Broken(), 1.0, 1.0)

    def test_a_model_that_fails(self):
        def fail() -> None:
            raise RuntimeError("CUDA error: an illegal memory access")

        with pytest.raises(RuntimeError, match="illegal memory access"):
            ask(Film(), 1.0, 1.0, Pointing(fail))


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "video_s", "seconds", "shown"),
        [("2.5", 8.0, 2.5, "2.5s"), ("2s", 8.0, 2.0, "2s"), ("50%", 8.0, 4.0, "50%"), ("0%", 8.0, 0.0, "0%")],
    )
    def test_seconds_or_a_share_of_each_video(self, text, video_s, seconds, shown):
        ask_at = AskAt.parse(text)
        assert (ask_at.in_video(video_s), str(ask_at)) == (seconds, shown)

    @pytest.mark.parametrize("text", ["", "-1", "100%", "nan", "inf", "half", "%", "1:30"])
    def test_others_are_refused_with_examples(self, text):
        with pytest.raises(ValueError, match=r"is no time in a video: give seconds, such as 2\.5, or a share"):
            AskAt.parse(text)


MISSED = LiveScores(math.nan, math.nan, 1.0)


def record(category: str, j: float, live: LiveScores, variant: str = "full method, asked at 50%", there: bool = True) -> Record:
    found = not math.isnan(live.first_mask_s)
    about = (variant, "a", "0", "left", category, "thing", True, 1.0)
    return Record(*about, None, MaskScores(j, j), live, robustness=j, found=found, there=there)


class TestTables:
    def test_seconds_to_the_first_mask_are_a_mean_over_those_that_have_one(self):
        scores = [
            (MaskScores(0.5, 0.7), LiveScores(1.0, 1.0, 0.2)),
            (MaskScores(0.1, 0.3), LiveScores(1.0, 2.0, 0.3)),
            (MaskScores(0.0, 0.2), LiveScores(1.0, math.nan, 0.4)),
            (MaskScores(0.2, 0.0), MISSED),
        ]
        assert live_means(scores) == pytest.approx(
            {
                **{"j": 0.2, "f": 0.3, "j_and_f": 0.25, "answered": 0.75, "with_mask": 0.5},
                **{"without_answer": 0.475, "first_mask_s": 1.5},
            }
        )
        assert math.isnan(live_means(scores[2:])["first_mask_s"])

    def test_rows_are_in_percent_by_variant_and_group_and_an_overall_score_may_be_of_groups(self):
        quick, slow = LiveScores(1.0, 1.0, 0.25), LiveScores(1.0, 3.0, 0.75)
        records = [record("referring", 0.2, quick), record("referring", 0.4, quick), record("reasoning", 0.7, slow)]
        nothing = [record("none", 0.0, MISSED, there=False), record("none", 0.0, quick, there=False)]
        rows = live_rows([*records, record("reasoning", 0.9, MISSED), *nothing], overall_of=("referring", "reasoning"))
        variant = "full method, asked at 50%"
        assert [tuple(row) for row in rows] == [
            (variant, "overall", "4", *["55.0"] * 4, "75.0", "50.0", "75.0", "75.0", "56.2", "2.00"),
            (variant, "none", "2", *["0.0"] * 4, "", "50.0", "50.0", "50.0", "62.5", "1.00"),
            (variant, "reasoning", "2", *["80.0"] * 4, "50.0", "", "50.0", "50.0", "87.5", "3.00"),
            (variant, "referring", "2", *["30.0"] * 4, "100.0", "", "100.0", "100.0", "25.0", "1.00"),
        ]
        assert len(rows[0]) == len(LIVE_HEADER)

    def test_a_journal_keeps_them_and_takes_no_others(self, tmp_path):
        Journal(OutputFolder(tmp_path), {}).add(record("", 0.5, LiveScores(1.0, math.nan, 0.25)))
        path = tmp_path / "results.jsonl"
        header, line = path.read_text().splitlines()
        assert json.loads(line, parse_constant=pytest.fail)["live"] == {
            **{"answer_s": 1.0, "first_mask_s": None, "without_answer": 0.25}
        }
        (read,) = Journal(OutputFolder(tmp_path), {}).records.values()
        assert (read.live.answer_s, read.live.without_answer) == (1.0, 0.25)
        assert math.isnan(read.live.first_mask_s)
        negative = {"answer_s": -1.0, "first_mask_s": None, "without_answer": 0.5}
        for wrong, cause in (
            (1.5, "1.5 is not how soon"),
            ({"answer_s": 1.0}, "missing 2 required"),
            (negative, "-1 s, nan s and a share of 0.5 cannot be"),
            (negative | {"answer_s": 1.0, "without_answer": 50}, "1 s, nan s and a share of 50 cannot be"),
        ):
            path.write_text(f"{header}\n{json.dumps(json.loads(line) | {'live': wrong})}\n")
            with pytest.raises(JournalError, match=rf"line 2 is no record: .*{cause}"):
                Journal(OutputFolder(tmp_path), {})


class TestCommand:
    @pytest.fixture
    def arguments(self, mevis) -> Iterator[list[str]]:  # noqa: F811
        """A dataset of one video of three frames with two sentences, at two frames a second."""
        given = ["--dataset", "mevis", "--root", str(mevis), "--live", "--frames-per-second", "2", "--threads", "1"]
        return [*given, "--variants", "video-only"]

    def test_from_end_to_end_with_the_embedded_models_twice_alike(self, arguments, tmp_path, capsys):
        (tmp_path / "mevis/valid_u/meta_expressions.json").write_text(
            json.dumps({"videos": {"clip": {"frames": ["00000", "00001", "00002"], "expressions": {"0": SENTENCE}}}})
        )
        asked = ["--ask-at", "0.25,0%", "--query-seconds", "0.5", "--save-masks"]
        for out in ("first", "second"):
            assert command.main([*arguments, *asked, "--out", str(tmp_path / out)]) == 0
        lines = [
            [{**json.loads(line), "seconds": 0} for line in (tmp_path / out / "results.jsonl").read_text().splitlines()]
            for out in ("first", "second")
        ]
        assert lines[0] == lines[1]
        with (tmp_path / "first" / "expressions.csv").open() as file:
            rows = list(csv.DictReader(file))
        # Frames come at 0, 0.5 and 1 s. Asked at 0.25 s, the answer comes at 0.75 s, about the second one; so it does at 0.5 s.
        assert [(row["variant"], row["answer_s"], row["without_answer"]) for row in rows] == [
            ("video path only, asked at 0.25s", "0.5", str(1 / 3)),
            ("video path only, asked at 0%", "0.5", str(1 / 3)),
        ]
        assert all(0 <= float(row["J"]) <= 100 and row["coarse J"] == "" for row in rows)
        summary = (tmp_path / "first" / "summary.md").read_text()
        assert "| video path only, asked at 0.25s | overall | 1 " in summary
        assert "Videos are played at 2 frames a second in simulated time; a query takes 0.5 s, whatever the machine." in summary
        masks = tmp_path / "first" / "masks" / "video-only-0.25s" / "clip" / "0"
        assert sorted(each.name for each in masks.iterdir()) == ["00000.png", "00001.png", "00002.png"]
        capsys.readouterr()
        assert command.main([*arguments, *asked, "--out", str(tmp_path / "first")]) == 0
        assert "of" not in capsys.readouterr().err  # all is there
        assert command.main([*arguments, "--query-seconds", "measured", "--out", str(tmp_path / "first")]) == 1
        assert "now {'query_seconds': 'measured'" in capsys.readouterr().err
        assert command.main([*arguments[:4], "--out", str(tmp_path / "first")]) == 1  # not live
        assert "live was" in capsys.readouterr().err

    def test_other_methods_are_asked_live_as_well(self, arguments, tmp_path):
        out = tmp_path / "out"
        (tmp_path / "mevis/valid_u/meta_expressions.json").write_text(
            json.dumps({"videos": {"clip": {"frames": ["00000", "00001", "00002"], "expressions": {"0": SENTENCE}}}})
        )
        asked = ["--methods", "box,loc-head,tam", "--ask-at", "0%", "--query-seconds", "0", "--min-presence", "0.001"]
        assert command.main([*arguments, *asked, "--out", str(out)]) == 0
        with (out / "expressions.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["variant"] for row in rows] == [f"{name}, asked at 0%" for name in ("boxes", "Loc-Head", "TAM")]
        assert all((row["there"], row["answer_s"]) == ("True", "0.0") for row in rows)
        asked_alike = [float(row["presence"]) for row in rows[1:]]  # of boxes, no mask is found
        assert 0 < asked_alike[0] < 1
        assert asked_alike == pytest.approx(asked_alike[:1] * 2, rel=1e-3)

    @pytest.mark.parametrize(
        ("options", "cause"),
        [
            (["--ask-at", "50%"], "--ask-at goes with --live"),
            (["--query-seconds", "0"], "--query-seconds goes with --live"),
            (["--live"], "videos of MeViS come without a rate: say with --frames-per-second"),
            (["--live", "--ask-at", "1,150%"], "'150%' is no time in a video"),
            (["--live", "--query-seconds", "-1"], "'-1' is no number from 0 to 3600"),
            (["--live", "--frames-per-second", "0"], "'0' is no number from 0.001 to 1000"),
        ],
    )
    def test_options_that_make_no_sense_are_refused(self, tmp_path, capsys, options, cause):
        with pytest.raises(SystemExit):
            command.main(["--dataset", "mevis", "--root", str(tmp_path), "--out", str(tmp_path / "out"), *options])
        assert cause in capsys.readouterr().err

    def test_a_video_that_is_over_before_the_question_is_named_before_anything_is_computed(
        self, arguments, tmp_path, capsys, monkeypatch
    ):
        monkeypatch.setattr(command, "load_models", lambda *_, **__: pytest.fail("the models are loaded"))
        assert command.main([*arguments, "--out", str(tmp_path / "out"), "--ask-at", "50%,1.5"]) == 1
        assert "--ask-at 1.5s: the video 'clip' takes 1.5 s; ask earlier, or at a share" in capsys.readouterr().err


SENTENCE = {"exp": "the red ball", "obj_id": [0], "anno_id": [5]}
