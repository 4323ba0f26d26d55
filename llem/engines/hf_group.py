"""One model over several processes: each layer's tensors are split between them, and torch.distributed brings the parts together."""

from typing import Any

import torch
import torch.distributed as dist


def join_group(device: torch.device) -> None:
    """Meet the other processes, by the variables that torchrun sets."""
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def leave_group() -> None:
    """May be called twice."""
    if dist.is_initialized():
        dist.destroy_process_group()


def said_by_rank_0(goes_on: bool, device: torch.device) -> bool:
    """What rank 0 passed, on every rank."""
    told = torch.tensor([int(goes_on)], device=device)
    dist.broadcast(told, src=0)
    return bool(told.item())


def splitting_options() -> dict[str, Any]:
    """What from_pretrained takes to load this process's part of each layer: releases before 5 know another name."""
    try:
        from transformers.distributed import DistributedConfig  # noqa: PLC0415 -- newer than the oldest release that we take

        return {"distributed_config": DistributedConfig(tp_plan="auto", tp_size=dist.get_world_size())}
    except (ImportError, TypeError):
        return {"tp_plan": "auto"}
