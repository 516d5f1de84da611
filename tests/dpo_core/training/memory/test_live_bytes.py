"""The counter of live bytes, against cases worked out by hand. float32: 4 bytes a number."""

from __future__ import annotations

import torch
from torch import nn

from dreambooth_dpo.dpo_core.training.memory.fake_bytes import FakeBytes
from dreambooth_dpo.dpo_core.training.memory.live_bytes import LiveBytes


def test_a_storage_counts_once_and_until_its_last_view_is_gone() -> None:
    with LiveBytes() as count:
        whole = torch.zeros(100, 10)
        part = whole[3:].view(-1)
        assert count.live == 4000
        more = whole + 1
        assert count.live == 8000
        del more
        assert (count.live, count.peak) == (4000, 8000)
        del whole
        assert count.live == 4000, "a view keeps the whole storage"
        del part
        assert (count.live, count.peak) == (0, 8000)


def test_earlier_tensors_count_where_they_are_added_and_ignored_ones_never() -> None:
    known, ignored = torch.zeros(10), torch.zeros(10)
    count = LiveBytes()
    count.add([known, known, None, 3])
    count.ignore([ignored])
    with count:
        views = known[2:], ignored[2:]
        assert count.live == 40
        sums = known + ignored
        assert count.live == 80
    del views, sums


def test_a_product_keeps_what_its_backward_needs() -> None:
    """y = x @ w with w trained: x (5 x 10) is kept for w's gradient: 200 bytes; w itself 400; the result of exp 200 is
    kept for its backward, its input is not. Backward adds w's gradient, 400 bytes, beside exp's gradient."""
    w = torch.zeros(10, 10, requires_grad=True)
    count = LiveBytes()
    count.add([w])
    with count:
        loss = (torch.zeros(5, 10) @ w).exp().sum()
        assert count.live == 400 + 200 + 200 + 4
        loss.backward()
        assert count.live == 400 + 4 + 400


def two_layers() -> nn.Module:
    """Frozen weights 8 -> 32 -> 8 without biases: 2 x 1024 bytes."""
    return nn.Sequential(nn.Linear(8, 32, False), nn.GELU(), nn.Linear(32, 8, False)).requires_grad_(False)


def kept_by(count: LiveBytes, net: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    """(bytes after the forward of the frozen net on x [4, 8] with gradient, peak)."""
    with count:
        result = net(x)
        found = count.live
        del result
    return found, count.peak


def test_saved_tensors_of_two_frozen_layers() -> None:
    """Weights 2048, x 128. Kept: the input of gelu, 4 x 32 numbers = 512, and the result, 128. The output of gelu is
    not kept, since the second weight is frozen; at the peak it is there beside them: 512 more."""
    net, x = two_layers(), torch.zeros(4, 8, requires_grad=True)
    count = LiveBytes()
    count.add([*net.parameters(), x])
    assert kept_by(count, net, x) == (2048 + 128 + 512 + 128, 2048 + 128 + 512 + 512 + 128)


def test_without_data_the_same_bytes_are_counted() -> None:
    for exact in (False, True):
        count, net = FakeBytes(exact), two_layers()
        net = net.to("meta") if not exact else net
        x = count.counted(torch.zeros(4, 8)).requires_grad_()
        if exact:
            for layer in (net[0], net[2]):
                layer._parameters["weight"] = nn.Parameter(count.like(layer.weight), requires_grad=False)
        count.add([*net.parameters()])
        assert kept_by(count, net, x) == (2048 + 128 + 512 + 128, 2048 + 128 + 512 + 512 + 128)


def test_real_tensors_are_read_and_never_written() -> None:
    count, own = FakeBytes(), torch.arange(4.0)
    with count:
        assert (own * 2).tolist() == [0, 2, 4, 6], "an operation on real tensors alone has values"
        own.add_(1)
        mixed = count.like(torch.zeros(4)) + own
        number = torch.tensor(1.0)
        number += 1
        assert float(number) == 2, "a number that the code made is its own"
    assert mixed.is_meta and own.tolist() == [0, 1, 2, 3]


def test_attention_keeps_no_scores() -> None:
    """Two heads, 64 tokens of width 8: queries, keys and values 4096 bytes each, the result 4096 and a row of sums of
    2 x 64 numbers = 512; the scores would be 2 x 64 x 64 numbers = 32768."""
    count = FakeBytes()
    q, k, v = (count.counted(torch.zeros(1, 2, 64, 8)) for _ in range(3))
    with count:
        result = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        assert count.live == 3 * 4096 + 4096 or count.live == 3 * 4096 + 4096 + 512
        assert count.peak < 3 * 4096 + 32768 and result.shape == q.shape
