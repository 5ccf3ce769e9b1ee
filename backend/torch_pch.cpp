// Owns the precompiled <ATen/ATen.h> that the other LibTorch-using libraries reuse.
