"""Architectures of Hugging Face's, built small from their configurations: nothing is downloaded.

They run where transformers is installed: ``pip install transformers`` beside the extra ``torch``.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
import torch
import transformers

import ckpt
from ckpt.torch.run.program import TorchProgram

BERT = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64}  # fmt: skip
LLAMA = {**BERT, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 64, "image_size": 32, "patch_size": 8}  # fmt: skip


TEXT = {
    "BertForMaskedLM": ("BertConfig", BERT),
    "RobertaForMaskedLM": ("RobertaConfig", {**BERT, "max_position_embeddings": 40}),
    "DistilBertForMaskedLM": (
        "DistilBertConfig",
        {"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    ),
    "DebertaV2ForMaskedLM": ("DebertaV2Config", BERT),
    "GPT2LMHeadModel": (
        "GPT2Config",
        {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 0,
         "eos_token_id": 0},
    ),
    "LlamaForCausalLM": ("LlamaConfig", LLAMA),
    "MistralForCausalLM": ("MistralConfig", LLAMA),
    "Qwen3ForCausalLM": ("Qwen3Config", {**LLAMA, "head_dim": 8}),
    "Gemma2ForCausalLM": ("Gemma2Config", {**LLAMA, "head_dim": 8}),
}  # fmt: skip
IMAGES = {
    "ViTForImageClassification": ("ViTConfig", SMALL_VIT),
}  # fmt: skip
REFUSED = {
    "MixtralForCausalLM": ("MixtralConfig", LLAMA, "_grouped_mm"),
}


def build(name: str, config: tuple[str, dict[str, object]]):
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config[0])(**config[1])).train()
    if name in IMAGES:
        return model, {"pixel_values": torch.randn(2, 3, 32, 32), "labels": torch.tensor([0, 1])}
    tokens = torch.randint(100, (2, 16))
    return model, {"input_ids": tokens, "labels": tokens}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*TEXT, *IMAGES])
def test_bits_and_peaks(name: str) -> None:
    model, inputs = build(name, {**TEXT, **IMAGES}[name])
    program = TorchProgram(model, (), inputs)
    with program.restored():
        plain, own = program.measure(program.plain)
    assert own * 0.999 - 16 <= program.eager_peak <= 1.02 * own
    for planner in ("store_all", "chain"):
        schedule = ckpt.make_schedule(program.graph, planner)
        with program.restored():
            found, peak = program.measure(program.compile(schedule))
        assert program.digest(found) == program.digest(plain), planner
        assert abs(peak - ckpt.simulate(program.graph, schedule).peak) <= 16, planner


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name: str) -> None:
    config, options, reason = REFUSED[name]
    model, inputs = build(name, (config, options))
    with pytest.raises(ckpt.UnsupportedError, match=reason):
        TorchProgram(model, (), inputs)
