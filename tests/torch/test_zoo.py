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
    "Qwen2ForCausalLM": ("Qwen2Config", LLAMA),
    "GemmaForCausalLM": ("GemmaConfig", {**LLAMA, "head_dim": 8}),
    "Gemma3ForCausalLM": ("Gemma3TextConfig", {**LLAMA, "head_dim": 8}),
    "AlbertForMaskedLM": ("AlbertConfig", {**BERT, "embedding_size": 16}),
    "ElectraForMaskedLM": ("ElectraConfig", {**BERT, "embedding_size": 16}),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", BERT),
    "PhiForCausalLM": ("PhiConfig", BERT),
    "BloomForCausalLM": ("BloomConfig",
                         {"vocab_size": 100, "hidden_size": 32, "n_layer": 2, "n_head": 2}),
    "OPTForCausalLM": (
        "OPTConfig",
        {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 64,
         "num_attention_heads": 2, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    ),
    "T5ForConditionalGeneration": (
        "T5Config",
        {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
         "decoder_start_token_id": 0, "pad_token_id": 0},
    ),
    "BartForConditionalGeneration": (
        "BartConfig",
        {"vocab_size": 100, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
         "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64,
         "decoder_ffn_dim": 64, "max_position_embeddings": 64},
    ),
    "MambaForCausalLM": (
        "MambaConfig",
        {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 4},
    ),
}  # fmt: skip
NARROW = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
IMAGES = {
    "ViTForImageClassification": ("ViTConfig", SMALL_VIT),
    "DeiTForImageClassification": ("DeiTConfig", SMALL_VIT),
    "SwinForImageClassification": (
        "SwinConfig",
        {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2],
         "window_size": 4},
    ),
    "ResNetForImageClassification": (
        "ResNetConfig", {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [2, 2]}
    ),
    "RegNetForImageClassification": (
        "RegNetConfig",
        {"embedding_size": 8, "hidden_sizes": [16, 16], "depths": [1, 1], "groups_width": 8},
    ),
    "MobileNetV1ForImageClassification": (
        "MobileNetV1Config", {"image_size": 32, "depth_multiplier": 0.25, "min_depth": 4}
    ),
    "MobileNetV2ForImageClassification": (
        "MobileNetV2Config", {"image_size": 32, "depth_multiplier": 0.25}
    ),
    "ConvNextForImageClassification": ("ConvNextConfig", {**NARROW, "patch_size": 2}),
    "ConvNextV2ForImageClassification": ("ConvNextV2Config", {**NARROW, "patch_size": 2}),
    "PoolFormerForImageClassification": ("PoolFormerConfig", NARROW),
    "SegformerForImageClassification": (
        "SegformerConfig",
        {"hidden_sizes": [8, 16], "num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1],
         "patch_sizes": [3, 3], "strides": [2, 2], "num_attention_heads": [1, 2],
         "mlp_ratios": [2, 2], "decoder_hidden_size": 16},
    ),
}  # fmt: skip
EXPERTS = {**LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
           "shared_expert_intermediate_size": 16}  # fmt: skip
REFUSED = {
    "MixtralForCausalLM": ("MixtralConfig", LLAMA, "moe.py:.* _grouped_mm"),
    "Qwen2MoeForCausalLM": ("Qwen2MoeConfig", EXPERTS, "moe.py:.* _grouped_mm"),
}


def build(name: str, config: tuple[str, dict[str, object]]):
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config[0])(**config[1])).train()
    if name in IMAGES:
        return model, {"pixel_values": torch.randn(2, 3, 32, 32), "labels": torch.tensor([0, 1])}
    tokens = torch.randint(1, 100, (2, 16))
    return model, {"input_ids": tokens, "labels": tokens}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*TEXT, *IMAGES])
def test_bits_and_peaks(name: str) -> None:
    model, inputs = build(name, {**TEXT, **IMAGES}[name])
    program = TorchProgram(model, (), inputs)
    with program.restored():
        plain, own = program.measure(program.plain)
    assert own * 0.999 - 16 <= program.eager_peak
    assert program.eager_peak <= own * 1.02
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
