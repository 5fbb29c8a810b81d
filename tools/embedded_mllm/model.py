"""The architecture of the embedded Qwen2.5-VL: dimensions, tokenizer, processor; all in the formats of transformers.

A directory written by :func:`save` is read by plain ``from_pretrained``, and driven like ``Qwen/Qwen2.5-VL-7B-Instruct``.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.normalizers import NFKC, Lowercase
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import Digits, Punctuation, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from torch import nn
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from decaf_ros.models import prompts
from decaf_ros.synthetic.table.scene import TABLE_TOPS
from decaf_ros.synthetic.table.wordings import vocabulary

PATCH_SIZE, MERGE_SIZE, TEMPORAL_PATCH_SIZE = 8, 2, 2
TOKEN_PIXELS = PATCH_SIZE * MERGE_SIZE
# 192x256 images are read on 12x16 tokens in a video and on 15x20 alone.
VIDEO_FRAME_TOKENS = 192
IMAGE_TOKENS = 300

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<unk>",
)
# Words around an expression that users type; the training data wraps expressions in them.
WRAPPERS = (
    "please find {expression}",
    "track {expression}",
    "segment {expression}",
    "follow {expression}, please",
    "show me {expression}",
    "where is {expression}?",
    "can you see {expression}?",
    "i want {expression}",
    "look for {expression}",
    "a robot must pick up {expression}",
)
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer: lower case, punctuation, digits and line breaks apart, ``<unk>`` for every other word.

    Answers are one word, or JSON: they are decoded without spaces.
    """
    sentences = [prompts.object_prompt(wrapper.format(expression="")) for wrapper in WRAPPERS]
    sentences += [prompts.name_prompt("", ["", ""])]
    sentences += [prompts.background_prompt("object"), prompts.background_prompt(""), "image"]
    sentences += [prompts.presence_prompt(""), prompts.box_prompt(""), '[{"bbox_2d":[0,1],"label":"yes no"}] 2 3 4 5 6 7 8 9']
    sentences += [*vocabulary(), *TABLE_TOPS, "\n . , ? ! : ; ' \" ( ) - system user assistant"]
    spaces = [Split(Regex(r"\n"), "isolated"), Split(Regex(r"[^\S\n]+"), "removed")]
    split = PreTokenizers([*spaces, Punctuation("isolated"), Digits(individual_digits=True)])
    words = sorted({word for sentence in sentences for word, _ in split.pre_tokenize_str(sentence.lower())})

    tokenizer = Tokenizer(WordLevel({token: index for index, token in enumerate([*SPECIAL_TOKENS, *words])}, unk_token="<unk>"))
    tokenizer.normalizer = Normalizers([NFKC(), Lowercase()])
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:7]),
        chat_template=_CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
    )


def build_processor() -> Qwen2_5_VLProcessor:
    """Qwen's own processor with small patches and the pixel limits of this model."""
    patches = {"patch_size": PATCH_SIZE, "merge_size": MERGE_SIZE, "temporal_patch_size": TEMPORAL_PATCH_SIZE}
    smallest = 4 * TOKEN_PIXELS**2
    image = {"shortest_edge": smallest, "longest_edge": IMAGE_TOKENS * TOKEN_PIXELS**2}
    video = {"shortest_edge": smallest, "longest_edge": VIDEO_FRAME_TOKENS * TOKEN_PIXELS**2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=image, **patches),
        tokenizer=build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(size=video, cap_pixels_per_frame=False, **patches),
        chat_template=_CHAT_TEMPLATE,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Real architecture, tiny dimensions: text 6 layers of 160, vision 4 blocks of 128, every second one with full attention.

    The base of the rotations is so small, and time has so few of them, that height and width are told apart sharply enough to
    find the same place on another frame.
    """

    def token_id(token: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(token))

    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 160,
            "intermediate_size": 448,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "mrope_section": [4, 8, 8]},
            "bos_token_id": None,
            "eos_token_id": token_id("<|im_end|>"),
            "pad_token_id": token_id("<|endoftext|>"),
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE_SIZE,
            "temporal_patch_size": TEMPORAL_PATCH_SIZE,
            "window_size": 4 * TOKEN_PIXELS,
            "out_hidden_size": 160,
            "fullatt_block_indexes": [1, 3],
            "tokens_per_second": 2,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=False,
    )


def build_model(config: Qwen2_5_VLConfig) -> Qwen2_5_VLForConditionalGeneration:
    """A model with random weights, of the scale that lets so narrow a network learn: fan-in, and wide embeddings."""
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, 1.0 / math.sqrt(fan_in))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(0.0, 0.5)
    return model


def save(model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, folder: Path) -> None:
    """Write weights (float16 safetensors), configuration, tokenizer, processor and chat template."""
    half = Qwen2_5_VLForConditionalGeneration(build_config(processor.tokenizer))  # free of what training set in it
    half.load_state_dict(model.state_dict())
    tokenizer = processor.tokenizer
    half.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False, max_new_tokens=64
    )
    half.half().save_pretrained(folder)
    processor.save_pretrained(folder)
