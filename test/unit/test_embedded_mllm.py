"""The shipped Qwen2.5-VL, through plain transformers: nothing of ours between the files and the answers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2_5_VLForConditionalGeneration

import decaf_ros.models.embedded
from decaf_ros.models.prompts import background_prompt, object_prompt
from decaf_ros.synthetic.table.episodes import sample_episode
from decaf_ros.synthetic.table.sampling import require_held_out
from decaf_ros.synthetic.table.sentences import sentences_of

FOLDER = Path(decaf_ros.models.embedded.__path__[0]) / "qwen2_5_vl"
TIMES_S = (1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75)
SEEDS = range(910_000, 910_012)


@pytest.fixture(scope="module")
def model() -> Qwen2_5_VLForConditionalGeneration:
    return AutoModelForImageTextToText.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER)


def answer(model, processor, frames: list[np.ndarray], prompt: str) -> str:
    """What the model says about a video, asked as any Qwen2.5-VL is asked."""
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": prompt}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    metadata = {"fps": 4.0, "total_num_frames": len(frames), "frames_indices": list(range(len(frames)))}
    inputs = processor(text=[text], videos=[np.stack(frames)], video_metadata=[metadata], return_tensors="pt")
    generated = model.generate(**inputs)
    return processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]


def test_it_is_a_small_model_of_the_real_architecture(model):
    assert type(model) is Qwen2_5_VLForConditionalGeneration
    assert sum(parameter.numel() for parameter in model.parameters()) <= 5_000_000
    assert sum(file.stat().st_size for file in FOLDER.glob("*.safetensors")) <= 10 * 2**20


def test_the_chat_has_the_vision_first_and_no_system_turn(processor):
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "The red mug."}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    vision = "<|vision_start|><|image_pad|><|vision_end|>"
    assert text == f"<|im_start|>user\n{vision}The red mug.<|im_end|>\n<|im_start|>assistant\n"


def test_any_text_is_tokenized_and_known_words_survive(processor):
    tokenizer = processor.tokenizer
    tokens = tokenizer.tokenize("Find the RED\nmug, s'il vous plaît! 🤖")
    assert tokens[:7] == ["find", "the", "red", "\n", "mug", ",", "<unk>"]
    box = '[{"bbox_2d":[12,304,5,77],"label":"mug"}]'
    assert tokenizer.decode(tokenizer(box)["input_ids"]) == box


def test_held_out_objects_that_are_named_and_backgrounds(model, processor):
    right, background_right, asked = 0, 0, 0
    for seed in SEEDS:
        episode = sample_episode(require_held_out(seed))
        frames = [episode.render(time_s).image_rgb for time_s in TIMES_S]
        sentences = sentences_of(episode, TIMES_S[-1], np.random.default_rng(seed), TIMES_S[-1] - TIMES_S[0])
        for sentence in [sentence for sentence in sentences if sentence.kind == "colour_category"][:2]:
            asked += 1
            right += answer(model, processor, frames, object_prompt(sentence.text)) == sentence.answer
            background_right += answer(model, processor, frames, background_prompt(sentence.answer)) == episode.scene.look.table
    assert asked >= 15
    assert right / asked >= 0.9
    assert background_right / asked >= 0.6
