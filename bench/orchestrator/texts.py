"""The texts and numbers of a typical experiment, as an agent writes and train.py prints them."""

from typing import Any

IDEA: dict[str, Any] = {
    "hypothesis": "Raising the matrix learning rate by a quarter converges sooner within the "
    "budget, since the loss still falls steeply when the cool-down begins.",
    "description": "MATRIX_LR 0.04 -> 0.05",
    "category": "hyperparams",
    "commit_sha": "3f1c2a9",
    "diff_summary": "-MATRIX_LR = 0.04\n+MATRIX_LR = 0.05",
}

METRICS: dict[str, Any] = {
    "peak_vram_mb": 45012.4,
    "training_seconds": 300.2,
    "total_tokens_m": 499.6,
    "mfu_percent": 39.8,
    "num_steps": 953,
    "num_params_m": 50.3,
    "depth": 8,
}

ENVIRONMENT: dict[str, Any] = {
    "gpu_name": "NVIDIA H100 80GB HBM3",
    "gpu_uuid": "GPU-5f3c1a52-7a0e-4f5b-9d25-0c1fd1f7a1aa",
    "driver_version": "570.86.15",
    "torch_version": "2.9.1",
    "python_version": "3.12.4",
    "profile": "cuda-h100",
    "validation_sha256": "9b" * 32,
    "host": "node-17",
}
