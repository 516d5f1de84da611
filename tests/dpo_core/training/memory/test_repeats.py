"""Figures of a whole denoiser from few of its equal blocks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dreambooth_dpo.dpo_core.training.memory.repeats import of_all_blocks, repeats


class Net(nn.Module):
    """Eleven equal blocks, a last one of another size, and a list that is too short to be shortened."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(11)] + [nn.Linear(4, 2)])
        self.short = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
        self.runs: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs.append(len(self.blocks))
        for block in (*self.blocks, *self.short):
            x = block(x)
        return x


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_longest_run_of_equal_blocks() -> None:
    net = Net()
    assert [(r.blocks is net.blocks, r.first, r.count) for r in repeats(net)] == [(True, 0, 11)]
    assert repeats(nn.Sequential(nn.Linear(2, 2))) == []


def test_figures_of_few_blocks_add_up_to_those_of_all() -> None:
    """A block has 20 numbers: 2 blocks and the rest 40 + 10 + 18 = 68, 3 blocks 88, all eleven 68 + 9 * 20 = 248."""
    net, seen = Net(), []

    def figures() -> tuple[int, int]:
        net(torch.zeros(1, 4))
        seen.append(parameters(net))
        return parameters(net), 5

    assert of_all_blocks(net, figures) == [248, 5]
    assert (
        seen == [68, 88]
        and net.runs == [3, 4]
        and parameters(net) == 248
        and list(net.blocks._modules) == [str(n) for n in range(12)]
    )


def test_a_denoiser_that_needs_all_its_blocks_runs_as_a_whole() -> None:
    net = Net()

    def figures() -> tuple[int]:
        return (parameters(net) + 0 * net.blocks[11].out_features,)

    assert of_all_blocks(net, figures) == [248]
    assert parameters(net) == 248, "all blocks are back after the error"


def test_an_error_of_the_whole_denoiser_is_raised() -> None:
    def figures() -> tuple[int]:
        raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError, match="no kernel"):
        of_all_blocks(Net(), figures)


def pair_of_lists(one: int, other: int) -> nn.Module:
    net = nn.Module()
    net.one, net.other = (nn.ModuleList([nn.Linear(4, 4) for _ in range(count)]) for count in (one, other))
    return net


def test_each_list_grows_by_its_own_run() -> None:
    """20 blocks and 10: 2 and 2 have 80 numbers, one more 100; all 80 + 18 * 20 + 8 * 20 = 600."""
    net, seen = pair_of_lists(20, 10), []
    assert of_all_blocks(net, lambda: [seen.append(parameters(net)) or seen[-1]]) == [600]
    assert seen == [80, 100, 100]


def test_short_lists_run_as_they_are() -> None:
    """Two lists of eleven: three runs with 4, 5 and 5 blocks, 14 in all, are more than half of 22."""
    net, seen = pair_of_lists(11, 11), []
    assert of_all_blocks(net, lambda: [seen.append(parameters(net)) or seen[-1]]) == [440]
    assert seen == [440]


def test_lists_inside_lists_are_left_out() -> None:
    assert repeats(nn.ModuleDict({"blocks": nn.ModuleList([pair_of_lists(20, 20), nn.Linear(2, 2)])})) == []
