"""Converts checkpoints of tests/data/families to GGUF the way llama.cpp's convert_hf_to_gguf.py does: names from the
Python package `gguf`, rows of Llama's q and k as rotary pairs, Gemma's norms plus one, fused projections in order.
Run in this folder: python3 make_families.py   (needs gguf, numpy, safetensors)
"""

import json
import math
import pathlib

import gguf
import numpy as np
from gguf.constants import MODEL_ARCH as Arch
from safetensors.numpy import load_file

FAMILIES = pathlib.Path("../families")
CASES = {
    "llama_bias": Arch.LLAMA, "llama3": Arch.LLAMA, "llama_linear": Arch.LLAMA, "llama_yarn": Arch.LLAMA,
    "mixtral": Arch.LLAMA, "qwen2": Arch.QWEN2, "qwen3": Arch.QWEN3, "gemma": Arch.GEMMA, "gemma2": Arch.GEMMA2,
    "gemma3": Arch.GEMMA3, "phi3_longrope": Arch.PHI3, "gpt2": Arch.GPT2, "gpt_neox": Arch.GPTNEOX,
    "falcon_7b": Arch.FALCON, "falcon_40b": Arch.FALCON,
}


def first(config, *keys):
    return next((config[key] for key in keys if config.get(key) is not None), None)


def paired(rows, heads):
    shape = rows.shape
    return rows.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def convert(case, arch):
    config = json.loads((FAMILIES / case / "config.json").read_text())
    weights = load_file(FAMILIES / case / "model.safetensors")
    name = gguf.MODEL_ARCH_NAMES[arch]
    heads = first(config, "num_attention_heads", "n_head")
    layers = first(config, "num_hidden_layers", "n_layer")
    hidden = first(config, "hidden_size", "n_embd")
    context = first(config, "max_position_embeddings", "n_positions")
    kv_heads = first(config, "num_key_value_heads", "num_kv_heads") or heads
    if arch == Arch.FALCON and config["multi_query"] and not config["new_decoder_architecture"]:
        kv_heads = 1
    head_dim = config.get("head_dim") or hidden // heads
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    local = rope.get("sliding_attention", {})
    rope = rope.get("full_attention", rope)
    rope_type = rope.get("rope_type") or rope.get("type")

    out = gguf.GGUFWriter(f"families/{case}.gguf", name)
    out.add_block_count(layers)
    out.add_context_length(context)
    out.add_embedding_length(hidden)
    out.add_feed_forward_length(first(config, "intermediate_size", "n_inner", "ffn_hidden_size") or 4 * hidden)
    out.add_head_count(heads)
    out.add_head_count_kv(kv_heads)
    if "rms_norm_eps" in config:
        out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    else:
        out.add_layer_norm_eps(first(config, "layer_norm_epsilon", "layer_norm_eps"))
    if config.get("head_dim"):
        out.add_key_length(head_dim)
        out.add_value_length(head_dim)
    theta = first(rope, "rope_theta") or first(config, "rope_theta", "rotary_emb_base")
    share = first({**config, **rope}, "rotary_pct", "partial_rotary_factor")
    rotary = int(head_dim * share) if share else head_dim
    if arch != Arch.GPT2:
        out.add_rope_freq_base(theta or 10000.0)
        out.add_rope_dimension_count(rotary)
    if rope_type in ("linear", "yarn"):
        out.add_rope_scaling_type(gguf.RopeScalingType(rope_type))
        out.add_rope_scaling_factor(rope["factor"])
    if rope_type == "yarn":
        out.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope_type == "llama3":
        factors = []
        for i in range(0, rotary, 2):
            wavelength = 2 * math.pi * theta ** (i / rotary)
            old = rope["original_max_position_embeddings"]
            if wavelength < old / rope["high_freq_factor"]:
                factors.append(1.0)
            elif wavelength > old / rope["low_freq_factor"]:
                factors.append(rope["factor"])
            else:
                smooth = (old / wavelength - rope["low_freq_factor"]) / (
                    rope["high_freq_factor"] - rope["low_freq_factor"])
                factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
        out.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
    if rope_type in ("longrope", "su"):
        original = first({**config, **rope}, "original_max_position_embeddings")
        out.add_rope_scaling_orig_ctx_len(original)
        out.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(context / original) / math.log(original)))
        out.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], np.float32))
        out.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], np.float32))
    if "num_local_experts" in config:
        out.add_expert_count(config["num_local_experts"])
        out.add_expert_used_count(config["num_experts_per_tok"])
    if arch == Arch.GPTNEOX:
        out.add_parallel_residual(config["use_parallel_residual"])
    if arch in (Arch.GEMMA2, Arch.GEMMA3, Arch.PHI3) and config.get("sliding_window"):
        out.add_sliding_window(config["sliding_window"])
    if arch in (Arch.GEMMA2, Arch.GEMMA3):
        out.add_float32(f"{name}.attention.scale", config["query_pre_attn_scalar"] ** -0.5)
        out.add_array(f"{name}.attention.sliding_window_pattern",
                      [kind == "sliding_attention" for kind in config["layer_types"]])
    if arch == Arch.GEMMA2:
        out.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        out.add_final_logit_softcapping(config["final_logit_softcapping"])
    if local:
        out.add_float32(f"{name}.rope.freq_base_swa", local["rope_theta"])

    names = gguf.get_tensor_name_map(arch, layers)
    experts = {}
    for key, value in sorted(weights.items()):
        if key.endswith(("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")):
            continue
        if "block_sparse_moe.experts" in key:
            layer, expert, kind = int(key.split(".")[2]), int(key.split(".")[5]), key.split(".")[6]
            experts.setdefault((layer, kind), {})[expert] = value
            continue
        if arch == Arch.LLAMA and ".q_proj." in key:
            value = paired(value, heads)
        if arch == Arch.LLAMA and ".k_proj." in key:
            value = paired(value, kv_heads)
        if name.startswith("gemma") and "norm.weight" in key:
            value = value.astype(np.float32) + 1
        if arch == Arch.GPT2 and key.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            value = value.T
        if arch == Arch.GPTNEOX and "query_key_value" in key:
            parts = value.reshape(heads, 3, head_dim, *value.shape[1:])
            value = np.concatenate([parts[:, i].reshape(hidden, *value.shape[1:]) for i in range(3)])
        if arch == Arch.FALCON and "query_key_value" in key:
            parts = value.reshape(kv_heads, heads // kv_heads + 2, head_dim, *value.shape[1:])
            flat = lambda part: part.reshape(-1, *value.shape[1:])
            value = np.concatenate([flat(parts[:, :-2]), flat(parts[:, -2]), flat(parts[:, -1])])
        new = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert new, key
        value = value.astype(np.float32 if value.ndim == 1 or "ffn_gate_inp" in new else np.float16)
        out.add_tensor(new, np.ascontiguousarray(value))
    for (layer, kind), parts in experts.items():
        new = {"w1": "ffn_gate_exps", "w2": "ffn_down_exps", "w3": "ffn_up_exps"}[kind]
        stacked = np.stack([parts[i] for i in range(len(parts))]).astype(np.float16)
        out.add_tensor(f"blk.{layer}.{new}.weight", stacked)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


for case, arch in CASES.items():
    convert(case, arch)
