"""The sound of a video."""

from __future__ import annotations

from pydantic import Field

from .strict import Address, Strict, problem

DEFAULT_FADE_OUT_S = 1.0


class Audio(Strict):
    """A sound file under the whole video: cut off where the video ends, silent where the file ends first."""

    uri: Address = Field(description="gs://BUCKET/NAME or https://...")
    gain_db: float = Field(0.0, ge=-60, le=24, description="louder or softer, in decibels")
    start: float = Field(0.0, ge=0, le=3600, description="seconds of the file that are left out at its begin")
    loop: bool = Field(False, description="begin again, at start, whenever the file ends before the video")
    fade_in: float = Field(0.0, ge=0, le=60, description="seconds over which it rises from silence")
    fade_out: float | None = Field(
        None,
        ge=0,
        le=60,
        description="seconds over which it falls to silence; 1 when left out, or the video if shorter",
    )

    def check_fades(self, video_s: float) -> None:
        """Raises when a fade is longer than the video."""
        for name in ("fade_in", "fade_out"):
            fade_s = getattr(self, name)
            if fade_s is not None and fade_s > video_s + 1e-9:
                raise problem(f"{fade_s:g} s is longer than the video ({video_s:g} s): shorten it", "audio", name)

    def fade_out_s(self, sound_s: float) -> float:
        """Seconds of the fade before the end of a sound of `sound_s`."""
        return min(sound_s, DEFAULT_FADE_OUT_S if self.fade_out is None else self.fade_out)
