"""``decaf evaluate`` with a sentence that no model can take."""

import csv

from test_evaluate import FRAMES, RIGHT, make_video

from decaf_ros.cli import evaluate as command
from decaf_ros.evaluation.runner import Prediction
from decaf_ros.models.errors import PromptError
from decaf_ros.video import FrameSource


def test_a_sentence_that_the_model_cannot_take_is_not_found_and_the_next_one_is_asked(tmp_path, capsys, monkeypatch):
    def segment(source: FrameSource, expression: str) -> Prediction:
        if expression == "left":
            raise PromptError("the prompt holds '<|im_end|>'")
        return Prediction((0,), RIGHT[None], iter([RIGHT] * FRAMES), "thing", confident=True)

    monkeypatch.setattr(command, "read_dataset", lambda *_: [make_video(tmp_path / "video", "video")])
    monkeypatch.setattr(command, "load_models", lambda arguments, options: (None, None))
    monkeypatch.setattr(command, "DecafSegmenter", lambda *_: segment)
    out = tmp_path / "out"
    assert command.main(["--dataset", "mevis", "--root", str(tmp_path), "--out", str(out)]) == 0
    assert "'left' counts as not found: the prompt holds '<|im_end|>'" in capsys.readouterr().err
    with (out / "expressions.csv").open() as file:
        scores = [(row["expression"], float(row["J"])) for row in csv.DictReader(file)]
    assert scores == [("left", 0.0), ("right", 75.0)]  # right is gone on the last frame of four
