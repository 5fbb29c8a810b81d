"""What holds for every model family: an adapter against the same weights run by transformers alone, on the whole prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, ProcessorMixin

from decaf_ros.bench.reference.rollout import normalised, reference_rollout
from decaf_ros.bench.reference.whole import Whole, chat_text
from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.models.chat_model import ChatModel, Conversations, MllmOptions
from decaf_ros.models.errors import PromptError
from decaf_ros.models.protocols import TokenActivations, VideoMllm

OBJECT, BACKGROUND = "find the cup a b c .", "the d e f g h i ?"
VARIANTS = ("v_max", "original", "max")


WholePrompt = Callable[[str, FrameWindow, tuple[int, int], str], Whole]
"""From medium, frames, the grid's rows and columns, and a prompt."""


def conversations(medium: str, window: FrameWindow) -> list[FrameWindow]:
    """The frames of each conversation: all on the video path, one each on the frame path."""
    return [window] if medium == "video" else [FrameWindow((frame,)) for frame in window.frames]


def read(adapter: VideoMllm, medium: str, window: FrameWindow) -> Any:
    return adapter.read_video(window) if medium == "video" else adapter.read_frames(window)


def check_rollout(
    make_adapter: Callable[[MllmOptions], VideoMllm],
    eager: PreTrainedModel,
    whole: WholePrompt,
    medium: str,
    window: FrameWindow,
    grid_thw: tuple[int, int, int],
    **options: Any,
) -> None:
    """Both prompts' maps are those that whole attention matrices of the model's upper half give, cell by cell."""
    expected = [
        [reference_maps(eager, whole(medium, part, grid_thw[1:], prompt)) for part in conversations(medium, window)]
        for prompt in (OBJECT, BACKGROUND)
    ]
    for variant in VARIANTS:
        prefix = read(make_adapter(MllmOptions(rollout=variant, **options)), medium, window)
        assert prefix.grid_thw == grid_thw
        maps = prefix.rollout([prefix.ask(OBJECT), prefix.ask(BACKGROUND, answer=False)])
        for found, parts in zip(maps, expected, strict=True):
            reference = torch.cat([part[variant] for part in parts])
            assert (normalised(found.flatten()) - normalised(reference)).abs().max() <= 1e-4
            assert ((found.flatten() - reference) / reference).abs().max() <= 1e-4


@torch.inference_mode()
def reference_maps(eager: PreTrainedModel, whole: Whole) -> dict[str, torch.Tensor]:
    """For each variant, the rollout of whole matrices at the cells of the grid."""
    layers = eager(**whole.inputs, output_attentions=True).attentions
    upper_half = [layer[0] for layer in layers[len(layers) // 2 :]]
    visual = torch.zeros(len(upper_half[0][0]), dtype=torch.bool)
    visual[whole.grid_tokens] = True
    maps = {}
    for variant in VARIANTS:
        row = torch.zeros(len(visual))
        row[visual] = reference_rollout(upper_half, visual, variant)
        maps[variant] = row[whole.grid_tokens]
    return maps


@torch.inference_mode()
def check_logits(untouched: PreTrainedModel, tapped: PreTrainedModel, whole: Whole) -> None:
    """A model that an adapter holds gives the same logits, to the last bit, as one that none does."""
    implementations = {model.config.get_text_config()._attn_implementation for model in (untouched, tapped)}
    assert len(implementations) == 2, "the tap is in one of them"
    assert torch.equal(untouched(**whole.inputs).logits, tapped(**whole.inputs).logits)


@torch.inference_mode()
def generated(
    eager: PreTrainedModel, processor: ProcessorMixin, inputs: Mapping[str, torch.Tensor], max_new_tokens: int = 8
) -> str:
    """What transformers' own loop answers."""
    ids = eager.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    return processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def check_answers(
    adapter: VideoMllm, eager: PreTrainedModel, processor: ProcessorMixin, whole: WholePrompt, medium: str, window: FrameWindow
) -> None:
    """Answers behind a cached prefix are those of ``generate`` on the whole prompt, and no question leaves a trace."""
    prefix = read(adapter, medium, window)
    first, second, again = prefix.ask(OBJECT), prefix.ask(BACKGROUND), prefix.ask(OBJECT)
    alone = read(adapter, medium, window).ask(BACKGROUND)

    assert first.answers == again.answers
    assert second.answers == alone.answers
    assert torch.equal(prefix.rollout([first]), prefix.rollout([again]))
    for reply, prompt in ((first, OBJECT), (second, BACKGROUND)):
        parts = conversations(medium, window)
        inputs = [whole(medium, part, prefix.grid_thw[1:], prompt).inputs for part in parts]
        assert reply.answers == tuple(generated(eager, processor, part) for part in inputs)
        assert all(reply.answers)
    with pytest.raises(PromptError, match="control token"):
        prefix.ask(f"find the {getattr(processor, f'{medium}_token')} .")


def check_say(
    adapter: VideoMllm, eager: PreTrainedModel, processor: ProcessorMixin, whole: WholePrompt, window: FrameWindow
) -> None:
    """Long answers about some of the frames are those of ``generate`` on the whole prompt, and leave no trace."""
    prefix = adapter.read_frames(window)
    before, said, after = prefix.ask(OBJECT), prefix.say(BACKGROUND, (0, 2), 20), prefix.ask(OBJECT)
    parts = [conversations("image", window)[index] for index in (0, 2)]
    expected = [generated(eager, processor, whole("image", part, prefix.grid_thw[1:], BACKGROUND).inputs, 20) for part in parts]
    assert said == tuple(expected)
    assert any(len(answer.split()) > MllmOptions().max_new_tokens for answer in said), "longer than others"
    assert prefix.say(BACKGROUND, (), 20) == ()
    assert before.answers == after.answers
    assert torch.equal(prefix.rollout([before]), prefix.rollout([after]))


def check_work(adapter: VideoMllm, model: PreTrainedModel, medium: str, window: FrameWindow) -> None:
    """The last layer's output is computed for a prompt that is answered, and logits for its last token alone."""
    tokens: dict[str, int] = {}

    def counted(name: str, module: torch.nn.Module) -> Any:
        tokens[name] = 0

        def count(_: torch.nn.Module, arguments: tuple[torch.Tensor]) -> None:
            tokens[name] += arguments[0].shape[1]

        return module.register_forward_pre_hook(count)

    last = model.model.language_model.layers[-1]
    hooks = [counted("projected", last.self_attn.o_proj), counted("mixed", last.mlp), counted("predicted", model.lm_head)]
    prefix = read(adapter, medium, window)
    prefix.ask(OBJECT, answer=False)
    assert tokens == {"projected": 0, "mixed": 0, "predicted": 0}
    prefix.ask(OBJECT)
    for hook in hooks:
        hook.remove()
    after_prompt = tokens["predicted"] - 1  # tokens of the answer, one at a time
    assert tokens["projected"] == tokens["mixed"] > after_prompt + 1
    assert 0 <= after_prompt < MllmOptions().max_new_tokens


@torch.inference_mode()
def check_yes(
    adapter: VideoMllm, eager: PreTrainedModel, processor: ProcessorMixin, whole: WholePrompt, medium: str, window: FrameWindow
) -> None:
    """The probability of yes is that of the untouched model's next token, of those only that read yes or no."""
    words = {token: index for token, index in processor.tokenizer.get_vocab().items() if token.lower() in ("yes", "no")}
    assert len(words) == 4, "with and without a capital"
    prefix = read(adapter, medium, window)
    prefix.ask(BACKGROUND)  # leaves no trace
    expected = []
    for part in conversations(medium, window):
        logits = eager(**whole(medium, part, prefix.grid_thw[1:], OBJECT).inputs).logits[0, -1]
        weights = {token: logits[index].double().exp().item() for token, index in words.items()}
        expected.append((weights["yes"] + weights["Yes"]) / sum(weights.values()))
    assert prefix.probability_of_yes(OBJECT) == pytest.approx(expected, abs=1e-5)
    assert all(1e-3 < share < 1 - 1e-3 for share in expected), "random weights are not sure"


@torch.inference_mode()
def check_rivals(
    make_adapter: Callable[[MllmOptions], VideoMllm],
    eager: PreTrainedModel,
    processor: ProcessorMixin,
    whole: WholePrompt,
    medium: str,
    window: FrameWindow,
) -> None:
    """What other methods look at is the untouched model's: the last token's attention, and what tokens light up."""
    prefix = read(make_adapter(MllmOptions(hidden_states=True)), medium, window)
    without = read(make_adapter(MllmOptions()), medium, window)
    wholes = [whole(medium, part, prefix.grid_thw[1:], OBJECT) for part in conversations(medium, window)]

    layers = [eager(**one.inputs, output_attentions=True).attentions for one in wholes]
    rows = [
        torch.stack([layer[0, :, -1, one.grid_tokens] for layer in of_one]) for of_one, one in zip(layers, wholes, strict=True)
    ]
    for read_so in (prefix, without):
        found = read_so.last_token_attention(OBJECT)
        assert found.shape[2:] == prefix.grid_thw
        assert torch.allclose(found.flatten(2), torch.cat(rows, dim=-1), atol=1e-6)

    for activations, one in zip(prefix.activations(OBJECT), wholes, strict=True):
        check_activations(activations, eager, processor, one)
    with pytest.raises(ValueError, match="hidden_states"):
        without.activations(OBJECT)


def check_activations(found: TokenActivations, eager: PreTrainedModel, processor: ProcessorMixin, one: Whole) -> None:
    """They are logits of the whole conversation with its answer."""
    ids = one.inputs["input_ids"][0].tolist()
    prompt = processor.tokenizer(OBJECT, add_special_tokens=False)["input_ids"]
    words = eager.generate(**one.inputs, do_sample=False, max_new_tokens=8)[0, len(ids) :].tolist()
    words = [token for token in words if token != processor.tokenizer.eos_token_id]
    assert list(found.token_ids) == prompt + words
    assert (found.prompt_tokens, found.answer) == (len(prompt), processor.tokenizer.decode(words, skip_special_tokens=True))
    inputs = dict(one.inputs) | {"input_ids": torch.tensor([ids + words])}
    for name in {"attention_mask", "mm_token_type_ids"} & inputs.keys():
        inputs[name] = torch.nn.functional.pad(inputs[name], (0, len(words)), value=int(inputs[name][0, -1]))
    logits = eager(**inputs).logits[0, :, list(found.token_ids)].clamp(min=0.0).T
    first = next(place for place in range(len(ids)) if ids[place : place + len(prompt)] == prompt)
    places = [*range(first, first + len(prompt)), *range(len(ids) - 1, len(ids) - 1 + len(words))]
    assert torch.allclose(found.visual_kthw.flatten(1), logits[:, one.grid_tokens], atol=1e-4)
    assert torch.allclose(found.textual_kk, logits[:, places], atol=1e-4)
    assert found.visual_kthw.any()
    assert words


def check_text_alone(adapter: VideoMllm, eager: PreTrainedModel, processor: ProcessorMixin) -> None:
    """A prompt without images is answered as by ``generate``."""
    inputs = processor.tokenizer([chat_text(processor, None, OBJECT)], return_tensors="pt")
    assert adapter.complete(OBJECT) == generated(eager, processor, inputs)


@torch.inference_mode()
def changed_cells(
    monkeypatch: pytest.MonkeyPatch,
    adapter: VideoMllm,
    model: PreTrainedModel,
    medium: str,
    before: FrameWindow,
    after: FrameWindow,
) -> list[list[int]]:
    """Step, row and column of each grid cell whose token is another once some pixels are others.

    The vision encoder is kept from carrying anything from one patch to another, so that tokens show their own pixels only.
    """
    for name, parameter in model.named_parameters():
        if "vision_tower" in name and ("out_proj" in name or "projection_layer" in name):
            parameter.zero_()
    prefill, grid_tokens, embeddings = ChatModel.prefill, [], []

    def watched_prefill(chat: ChatModel, batch: Conversations) -> Any:
        grid_tokens.append(batch.grid_tokens)
        return prefill(chat, batch)

    monkeypatch.setattr(ChatModel, "prefill", watched_prefill)
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, arguments, named: embeddings.append(named["inputs_embeds"]), with_kwargs=True
    )
    prefixes = [read(adapter, medium, window) for window in (before, after)]
    hook.remove()
    changed_bn = (embeddings[0] != embeddings[1]).any(dim=-1)
    return changed_bn[:, grid_tokens[0]].reshape(prefixes[0].grid_thw).nonzero().tolist()


def painted(window: FrameWindow, index: int, rows: slice, columns: slice) -> FrameWindow:
    """The frames, with a rectangle of one inverted."""
    images = [frame.image_rgb.copy() for frame in window.frames]
    images[index][rows, columns] ^= 255
    return FrameWindow(
        tuple(Frame(frame.stamp_ns, frame.frame_id, image) for frame, image in zip(window.frames, images, strict=True))
    )


def eager_twin(model: PreTrainedModel) -> PreTrainedModel:
    """The model, with attention matrices to look at."""
    model.set_attn_implementation("eager")
    return model
