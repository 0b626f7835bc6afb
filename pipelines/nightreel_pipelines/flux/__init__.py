"""Keyframes by a FLUX model, through diffusers' own FluxPipeline. torch and diffusers are imported here alone."""

from .source import FluxSource

__all__ = ["FluxSource"]
