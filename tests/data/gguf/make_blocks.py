"""Writes blocks.safetensors: random blocks of each GGUF block type and the values that the Python package `gguf`
(gguf.quants, numpy) decodes them to. Run in this folder: python3 make_blocks.py   (needs gguf, numpy, safetensors)
"""

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize
from safetensors.numpy import save_file

# Offsets of the f16 scales in a block: they get finite values, every other byte is random.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}

random = np.random.default_rng(20240613)
tensors = {}
for name, offsets in SCALES.items():
    elements, size = GGML_QUANT_SIZES[Type[name]]
    blocks = 6 if elements == 32 else 2
    data = random.integers(0, 256, (blocks, size), dtype=np.uint8)
    for offset in offsets:
        scales = (random.standard_normal(blocks) * 2.0 ** random.integers(-14, 3, blocks)).astype(np.float16)
        data[:, offset:offset + 2] = scales.view(np.uint8).reshape(blocks, 2)
    tensors[name + ".blocks"] = data
    tensors[name + ".values"] = dequantize(data, Type[name]).reshape(blocks, elements).astype(np.float32)
save_file(tensors, "blocks.safetensors")
