"""Train the model pocket from nothing: draw pictures, write captions, train a small FLUX on them, write its folder.

    python scripts/train_pocket.py                      # checkpoints in out/train-pocket, the model in out/pocket
    python scripts/train_pocket.py                      # the same once more: goes on from the last checkpoint
    python scripts/train_pocket.py --now                # no more steps: the last checkpoint becomes the folder
    python scripts/train_pocket.py --tiny               # a model of nothing, in seconds: does everything work?

docs/how-to/train-pocket.md tells the rest.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is ever fetched
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait do not spin: the machine may have other work

import torch
import transformers.utils.logging as transformers_logging

sys.path.insert(0, str(Path(__file__).parent))
transformers_logging.set_verbosity_error()  # advice to install torchvision, for a part of FLUX that is not used
transformers_logging.disable_progress_bar()
warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")  # pocket/precision.py: it is meant so

from pocket.autoencoder import VaeTraining, peak_signal_to_noise
from pocket.dataset import Dataset, normalise
from pocket.flow import FlowTraining
from pocket.folder import model_facts, write_folder
from pocket.parts import Painter, make_painter
from pocket.progress import tell
from pocket.settings import SIZE_SHARES, Settings

OUT = Path("out")


def main() -> None:
    asked = _asked()
    torch.set_num_threads(asked.threads)
    settings = _settings(asked)
    settings.claim(asked.run)
    vae = _train_vae(settings, asked)
    painter = make_painter(settings.tiny, settings.seed_for("painter"))
    flow = FlowTraining(painter, settings, asked.run, asked.device)
    if not asked.now:
        _train_flow(flow, vae, painter, settings, asked)
    if flow.step == 0:
        raise SystemExit(f"{asked.run} holds no checkpoint of the second training yet: let it go on")
    flow.use_average()
    facts = model_facts(settings, flow.step, peak_signal_to_noise(vae, settings))
    write_folder(asked.out, painter, vae, facts)
    print(f"{asked.out}: pocket after {flow.step} of {settings.flow_steps} steps; judge it with bench/pictures.py")


def _train_vae(settings: Settings, asked: argparse.Namespace) -> Any:
    """The trained VAE, ready to encode; with --now as far as it has come."""
    training = VaeTraining(settings, asked.run, asked.device)
    if not asked.now:
        tell("vae", training.run(), training.step, settings.all_vae_steps, asked.threads)
    vae = training.vae.eval().requires_grad_(False)
    normalise(vae, settings)
    return vae


def _train_flow(flow: FlowTraining, vae: Any, painter: Painter, settings: Settings, asked: argparse.Namespace) -> None:
    """First on small pictures, because they are quick, then on all native sizes."""
    stages = (
        ("small", settings.first_sizes, (1,), settings.first_steps),
        ("sizes", settings.sizes, SIZE_SHARES[: len(settings.sizes)], settings.flow_steps),
    )
    for name, sizes, shares, until in stages:
        if flow.step >= until:
            continue
        datasets = [
            Dataset(vae, painter, size, settings.pictures * share // sum(shares), settings, asked.run)
            for size, share in zip(sizes, shares, strict=True)
        ]
        steps = flow.run(datasets, [float(share) for share in shares], until)
        tell(name, steps, flow.step, until, asked.threads)


def _settings(asked: argparse.Namespace) -> Settings:
    settings = Settings.for_tests(asked.seed) if asked.tiny else Settings(seed=asked.seed)
    steps = {
        "vae_steps": asked.vae_steps,
        "decoder_steps": asked.decoder_steps,
        "flow_steps": asked.flow_steps,
        "checkpoint_every": asked.checkpoint_every,
    }
    return replace(settings, **{name: value for name, value in steps.items() if value is not None})


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Settings()
    parser.add_argument("--run", type=Path, default=OUT / "train-pocket", help="folder of checkpoints (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT / "pocket", help="folder of the model (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides everything that is drawn by chance (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads; 1 gives equal bytes")
    parser.add_argument("--vae-steps", type=int, help=f"of the first training ({default.vae_steps})")
    parser.add_argument("--decoder-steps", type=int, help=f"after that, of its decoder ({default.decoder_steps})")
    parser.add_argument("--flow-steps", type=int, help=f"of the second ({default.flow_steps})")
    parser.add_argument("--checkpoint-every", type=int, help=f"steps that a kill can cost ({default.checkpoint_every})")
    parser.add_argument("--now", action="store_true", help="train no more: write the model from the last checkpoint")
    parser.add_argument("--tiny", action="store_true", help="the smallest training that does everything, for tests")
    return parser.parse_args()


if __name__ == "__main__":
    main()
