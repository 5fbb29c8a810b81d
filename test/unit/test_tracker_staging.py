"""What the training of the tracker makes of clips: masks stay with their pictures, whatever is cropped, pasted or hidden."""

from __future__ import annotations

import torch

from tools.embedded_sam2.staging import ARM, Shots, add_others, let_pass, look_around, whereabouts

CLIPS, STEPS = 12, 6
RED, GREEN, BLUE = 0, 1, 2


def _clips() -> tuple[torch.Tensor, torch.Tensor]:
    """A red thing that moves, a green one, and a blue arm, on black."""
    labels = torch.zeros(CLIPS, STEPS, 48, 64, dtype=torch.uint8)
    for step in range(STEPS):
        labels[:, step, 20:32, 10 + 3 * step : 20 + 3 * step] = 1
    labels[:, :, 6:14, 44:56] = 2
    labels[:, :, 34:, 48:] = ARM
    images = torch.stack([labels == 1, labels == 2, labels == ARM], dim=-1)
    return 255 * images.to(torch.uint8), labels


def _staged() -> list[Shots]:
    torch.manual_seed(0)
    images, labels = _clips()
    targets = torch.ones(CLIPS, dtype=torch.uint8)
    seen = look_around(images, labels, targets, size=64)
    joined = add_others(seen, targets)
    return [seen, joined, let_pass(joined, targets)]


def test_a_mask_covers_what_looks_like_its_thing() -> None:
    for shots in _staged():
        for label, colour in ((1, RED), (2, GREEN)):
            pixels = shots.images.movedim(2, -1)[shots.labels == label]
            assert len(pixels) > 1000
            assert (pixels.argmax(dim=1) == colour).float().mean() > 0.97


def test_targets_are_seen_first_and_often_hidden_later() -> None:
    shown = (_staged()[-1].labels == 1).sum(dim=(2, 3))
    assert (shown[:, 0] > 0).all()
    assert 0.05 < (shown[:, 1:] == 0).float().mean() < 0.5


def test_where_a_mask_is_and_how_far_it_reaches() -> None:
    mask = torch.zeros(1, 100, 200, dtype=torch.bool)
    mask[0, 40:60, 150:190] = True
    found = whereabouts(mask)
    torch.testing.assert_close(found.places, torch.tensor([[0.7, 0.0]]), atol=1e-4, rtol=0)
    # Twice the standard deviation of an even spread is 2 / sqrt(3) of the true half extents 0.2 and 0.2.
    torch.testing.assert_close(found.reaches, torch.tensor([[0.231, 0.231]]), atol=1e-3, rtol=0)
