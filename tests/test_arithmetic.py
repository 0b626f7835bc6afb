"""The arithmetic of docs/explanation/l4.md: its formulas against the real architecture, its tables against the page."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))

import arithmetic
import flux_sizes
import monthly

from nightreel_worker.prices import find_price

PAGE = (ROOT / "docs" / "explanation" / "l4.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
SIZE = (752, 1328)  # a keyframe of a vertical video at 1.0 megapixels


def counted(module: torch.nn.Module, *inputs: torch.Tensor, **named: torch.Tensor) -> float:
    """What torch itself counts, without computing or storing anything."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(*inputs, **named)
    return float(counter.get_total_flops())


def test_a_step_is_what_the_transformer_multiplies() -> None:
    # Given FLUX.1's own transformer, without memory for its numbers
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        model = FluxTransformer2DModel(**flux_sizes.TRANSFORMER).eval()
        tokens = (SIZE[0] // 16) * (SIZE[1] // 16)
        inputs = {
            "hidden_states": torch.empty(1, tokens, 64),
            "encoder_hidden_states": torch.empty(1, 256, 4096),
            "pooled_projections": torch.empty(1, 768),
            "timestep": torch.ones(1),
            "img_ids": torch.empty(tokens, 3),
            "txt_ids": torch.empty(256, 3),
        }

    # When it makes a step, then the formula is right to 1 %
    assert flux_sizes.step(*SIZE).all == pytest.approx(counted(model, **inputs), rel=0.01)


def test_a_prompt_is_what_t5_multiplies() -> None:
    from transformers import T5Config, T5EncoderModel

    with torch.device("meta"):
        model = T5EncoderModel(T5Config(**flux_sizes.T5)).eval()
        words = torch.zeros(1, 256, dtype=torch.long)

    assert flux_sizes.prompt().all == pytest.approx(counted(model, words), rel=0.01)


def test_decoding_is_what_the_vae_multiplies() -> None:
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        model = AutoencoderKL(**flux_sizes.VAE).eval()
        latents = torch.empty(1, 16, SIZE[1] // 8, SIZE[0] // 8)

    assert flux_sizes.decode(*SIZE) == pytest.approx(counted(model.decoder, latents), rel=0.01)


@pytest.mark.parametrize("name", ["step", "videos", "stages", "start"])
def test_the_page_shows_what_the_arithmetic_says(name: str) -> None:
    table = arithmetic.tables(arithmetic.USD_PER_HOUR, BENCHMARKS)[name]

    section = re.search(f"<!-- bench:arithmetic-{name} -->(.*)<!-- /bench:arithmetic-{name} -->", PAGE, flags=re.DOTALL)

    assert section, "python bench/arithmetic.py writes it"
    assert section[1].strip() == table.markdown(), "run python bench/arithmetic.py again"


def test_the_side_by_side_table_has_every_film_that_was_measured() -> None:
    filmed = arithmetic.films(BENCHMARKS)

    assert set(filmed) == {video.film for video in arithmetic.VIDEOS if video.film}
    assert all(0 < best <= worst for best, worst in filmed.values())


def test_a_dearer_machine_costs_more_in_proportion() -> None:
    usual, dearer = (arithmetic.tables(price, BENCHMARKS)["videos"].rows for price in (1.0, 2.0))

    for one, other in zip(usual, dearer, strict=True):
        assert float(other[-2].strip("$")) == pytest.approx(2 * float(one[-2].strip("$")), abs=0.0011)


def test_the_month_on_the_page_is_what_the_prices_say() -> None:
    page = monthly.PAGE.read_text(encoding="utf-8")
    section = re.search("<!-- bench:monthly -->(.*)<!-- /bench:monthly -->", page, flags=re.DOTALL)

    assert section, "python bench/monthly.py writes it"
    assert section[1].strip() == monthly.table().markdown(), "run python bench/monthly.py again"


def test_a_months_runs_and_videos_add_up() -> None:
    both, runs, videos = monthly.month_usd(1000, 30), monthly.month_usd(0, 30), monthly.month_usd(1000, 0)

    assert both == pytest.approx(runs + videos)
    assert runs == pytest.approx(30 * (arithmetic.cold_s(1.0) + 10) * find_price("cloudrun-l4").machine_usd_per_s)
