"""The training of the embedded Qwen2.5-VL: what it makes of clips, and its one pass for many questions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from decaf_ros.bench.reference.rollout import reference_rollout
from decaf_ros.synthetic.table.wordings import Sentence
from tools.embedded_mllm.attention import prepare
from tools.embedded_mllm.data import Diet, Looks, View, Windows, assemble, draw_image_batch, draw_look_batch, draw_video_batch
from tools.embedded_mllm.forward import CHAT_BEGIN, Tokens, answer_losses, build_prefix, run
from tools.embedded_mllm.losses import rollout_targets
from tools.embedded_mllm.model import build_config, build_model, build_processor
from tools.embedded_mllm.questions import NOTHING, object_question, presence_question
from tools.table_clips import SIZE_HW, Clip, ClipFolder, ClipWindow, read_clip, write_clip

FRAMES = 16
MUG, CAN = 0, 1
SEED = 1_000_007
EVER = (0.0, 3.75)
RED_MUG = Sentence("the red mug on the left", "colour_category", MUG, "mug", EVER)
MOVED = Sentence("the object that was moved", "moved", CAN, "can", (2.0, 3.75))
TEAPOT = Sentence("the teapot", "absent", None, "nothing", EVER)


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A red mug on the left that stands still, and a green can that goes up in the second half; rectangles on grey."""
    labels = torch.zeros(FRAMES, *SIZE_HW, dtype=torch.uint8)
    boxes = np.zeros((FRAMES, 2, 4), dtype=np.int16)
    for frame in range(FRAMES):
        top = 120 - 6 * max(0, frame - 8)
        for thing, (left, upper, right, lower) in enumerate(((32, 64, 64, 96), (160, top, 192, top + 48))):
            labels[frame, upper:lower, left:right] = thing + 1
            boxes[frame, thing] = (left, upper, right, lower)
    colours = torch.tensor([[128, 128, 128], [200, 0, 0], [0, 200, 0]], dtype=torch.uint8)
    positions = np.zeros((FRAMES, 2, 3), dtype=np.float32)
    positions[9:, CAN, 2] = 0.1
    return Clip(
        seed=SEED,
        kinds=("mug", "can"),
        colours=("red", "green"),
        table_top="oak",
        times_s=(0.25 * np.arange(FRAMES)).astype(np.float32),
        images=colours[labels.long()],
        instances=labels,
        positions_tn3=positions,
        tilts_tn=np.zeros((FRAMES, 2), dtype=np.float32),
        held_tn=positions[..., 2] > 0,
        boxes_tn4=boxes,
        windows=(ClipWindow(0, FRAMES, 1, (RED_MUG, MOVED, TEAPOT)),),
    )


def test_a_clip_is_read_as_it_was_written(clip: Clip, tmp_path: Path) -> None:
    write_clip(clip, tmp_path)
    read = read_clip(tmp_path / f"{SEED}.npz")
    assert (read.seed, read.kinds, read.colours, read.table_top, read.windows) == (
        (SEED, clip.kinds, clip.colours, clip.table_top, clip.windows)
    )
    assert torch.equal(read.instances, clip.instances)
    assert (read.images.float() - clip.images.float()).abs().mean() < 4  # a JPEG
    for name in ("times_s", "positions_tn3", "tilts_tn", "held_tn", "boxes_tn4"):
        assert np.array_equal(getattr(read, name), getattr(clip, name)), name


def test_held_out_clips_are_not_trained_on(clip: Clip, tmp_path: Path) -> None:
    write_clip(clip, tmp_path)
    (tmp_path / f"{SEED}.npz").rename(tmp_path / "7.npz")
    folder = ClipFolder(tmp_path)
    with pytest.raises(ValueError, match="seed 7 is held out"):
        folder.wait_for(1, seconds=30.0)


def test_where_to_look(clip: Clip) -> None:
    view = View(clip, np.arange(FRAMES))
    asked = [object_question(RED_MUG), object_question(MOVED), presence_question(TEAPOT)]
    batch = assemble([(view, asked)], (12, 16), is_video=True)
    targets, there = rollout_targets(batch)
    assert there.tolist() == [[True, True, True]]
    of_mug, of_can, _ = targets.view(3, *batch.grid_thw)
    # Rows 64 to 96 and columns 32 to 64 are four tokens of 16 pixels, all of them the mug's, on all eight steps alike.
    expected = torch.zeros(8, 12, 16)
    expected[:, 4:6, 2:4] = 1 / 32
    torch.testing.assert_close(of_mug, expected)
    # The can can be seen to be meant from 2 s on, less an eighth for the rounding of times: from the eighth frame, of step 3.
    assert of_can.sum(dim=(1, 2)).tolist() == pytest.approx([0, 0, 0, 0, 0.25, 0.25, 0.25, 0.25])
    assert batch.held[0, :, CAN].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert batch.targets.tolist() == [[MUG, CAN, NOTHING]]


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_part_of_the_image_and_its_mirror_image(clip: Clip, mirrored: bool) -> None:
    # The middle half of the image, twice as large: the mug's columns 32 to 64 are cut off at 64, the can's become 192 to 256.
    view = View(clip, np.arange(1), (48.0, 64.0), (96.0, 128.0), mirrored)
    batch = assemble([(view, [object_question(RED_MUG, mirrored=mirrored)])], (12, 16), is_video=False)
    can = batch.coverage[0, 0, :, :, CAN]
    columns = slice(0, 4) if mirrored else slice(12, 16)
    assert can[9:12, columns].eq(1).all()  # rows 120 to 168 begin at 144, and are cut off at 192
    assert can.sum() == 12
    assert batch.coverage[..., MUG].sum() == 0
    assert ("on the right" in batch.questions[0][0].prompt) is mirrored


def test_drawn_boxes_are_those_of_the_things_in_the_drawn_part(clip: Clip, tmp_path: Path) -> None:
    write_clip(clip, tmp_path)
    folder = ClipFolder(tmp_path)
    folder.wait_for(1)
    windows, rng = Windows(folder), np.random.default_rng(0)
    boxes = 0
    for _ in range(6):
        batch = draw_image_batch(windows, rng, Diet({"colour_category": 1.0, "moved": 1.0}, 2, boxes=2), patches=4 * 300 * 4)
        for row, asked in enumerate(batch.questions):
            for question in asked:
                if question.kind != "box":
                    continue
                boxes += 1
                ((told,),) = [json.loads(question.answer)]
                left, top, right, bottom = told["bbox_2d"]
                assert told["label"] == clip.kinds[question.target]
                share = batch.coverage[row, 0, :, :, question.target]
                rows, columns = np.nonzero(share.numpy())
                assert 16 * columns.min() - 1 <= left <= 16 * columns.min() + 16
                assert 16 * rows.min() - 1 <= top <= 16 * rows.min() + 16
                assert 16 * columns.max() <= right <= 16 * columns.max() + 17
                assert 16 * rows.max() <= bottom <= 16 * rows.max() + 17
                area = float(share.sum()) * 16 * 16
                assert area == pytest.approx((right - left) * (bottom - top), rel=0.15)
    assert boxes > 20


def test_parts_of_images_show_what_was_drawn_each_kind_as_often(clip: Clip, tmp_path: Path) -> None:
    write_clip(clip, tmp_path)
    folder = ClipFolder(tmp_path)
    folder.wait_for(1)
    looks, rng = Looks([folder]), np.random.default_rng(0)
    drawn = [looks.draw(rng)[2] for _ in range(400)]
    assert 150 < drawn.count(MUG) < 250
    for _ in range(6):
        batch = draw_look_batch(looks, rng, patches=16 * 4 * 64)
        seen = batch.coverage.amax(dim=(1, 2, 3))  # the mug and the can stand too far apart for one small part
        assert (seen[:, [MUG, CAN]].amax(dim=1) > 0.7).all()
        # What is seen has the colours of the rectangles: of the tokens that show nothing but the can, green is the strongest.
        green = batch.coverage[:, 0, :, :, CAN] > 0.999
        pixels = batch.pixels.view(len(green), *green.shape[1:], 4, 3, -1).mean(dim=(3, 5))  # in the processor's order
        assert (pixels[green].argmax(dim=-1) == 1).all()
        assert (pixels[batch.coverage[:, 0, :, :, MUG] > 0.999].argmax(dim=-1) == 0).all()


def test_one_pass_answers_each_question_as_a_prompt_of_its_own_would(clip: Clip, tmp_path: Path) -> None:
    write_clip(clip, tmp_path)
    folder = ClipFolder(tmp_path)
    folder.wait_for(1)
    torch.manual_seed(0)
    processor = build_processor()
    model, plain = (build_model(build_config(processor.tokenizer)).eval() for _ in range(2))
    plain.load_state_dict(model.state_dict())
    plain.set_attn_implementation("eager")
    prepare(model)
    diet = Diet({"colour_category": 1.0, "moved": 1.0}, 2, presences=1)
    batch = draw_video_batch(Windows(folder), np.random.default_rng(3), diet, patches=2 * 4 * 4 * 192, sparse=1.0)
    suffixes = Tokens(processor).suffixes(batch.questions, torch.device("cpu"))
    with torch.no_grad():
        output = run(model, build_prefix(model, processor, batch), suffixes)
        steps, rows, columns = batch.grid_thw
        patches = batch.pixels.view(len(batch.questions), -1, batch.pixels.shape[1])
        pads = "<|video_pad|>" * (steps * rows * columns)
        for sample, asked in enumerate(batch.questions):
            for number, question in enumerate(asked):
                text = f"{CHAT_BEGIN}<|vision_start|>{pads}<|vision_end|>{question.prompt}<|im_end|>\n<|im_start|>assistant\n"
                ids = processor.tokenizer(text, return_tensors="pt")["input_ids"]
                is_visual = ids == processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
                alone = plain(
                    input_ids=ids,
                    pixel_values_videos=patches[sample],
                    video_grid_thw=torch.tensor([[steps, 2 * rows, 2 * columns]]),
                    second_per_grid_ts=torch.tensor([batch.seconds_per_step[sample]]),
                    mm_token_type_ids=2 * is_visual.int(),
                    attention_mask=torch.ones_like(ids),
                    output_attentions=True,
                )
                last = int(suffixes.last[sample, number])
                torch.testing.assert_close(output.logits[sample, number, last], alone.logits[0, -1], atol=1e-4, rtol=1e-4)
                expected = reference_rollout([layer[0] for layer in alone.attentions[3:]], is_visual[0], "v_max")
                torch.testing.assert_close(output.rollouts[sample, number], expected, atol=1e-6, rtol=1e-3)


def test_only_the_answer_and_its_end_are_learned() -> None:
    tokens = Tokens(build_processor())
    suffixes = tokens.suffixes([[object_question(RED_MUG), presence_question(TEAPOT)]], torch.device("cpu"))
    for number, answer in enumerate(("mug", "no")):
        told = suffixes.weights[0, number].nonzero().flatten().tolist()
        last = int(suffixes.last[0, number])
        assert told == [last, last + 1]
        words = build_processor().tokenizer.convert_ids_to_tokens(suffixes.token_ids[0, number, [last + 1, last + 2]].tolist())
        assert words == [answer, "<|im_end|>"]


def test_a_right_answer_costs_nothing() -> None:
    tokens = Tokens(build_processor())
    suffixes = tokens.suffixes([[object_question(RED_MUG)]], torch.device("cpu"))
    sure = 50.0 * torch.nn.functional.one_hot(suffixes.token_ids.roll(-1, dims=-1), 300).float()
    output = type("Sure", (), {"logits": sure})
    assert answer_losses(output, suffixes).item() == pytest.approx(0.0, abs=1e-6)
    output.logits = torch.zeros_like(sure)
    # The logarithm of 300 words, once for the answer, and a tenth for the end of the turn.
    assert answer_losses(output, suffixes).item() == pytest.approx(1.1 * np.log(300), rel=1e-5)
