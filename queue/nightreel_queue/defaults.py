"""A manifest's defaults: what its jobs and shots leave out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .trees import Path, Tree, overlay

# Fields that cannot be shared, and why.
NOT_SHARED = {
    "id": "names one job: give it in the job",
    "batch": "belongs at the top of the manifest",
}
NOT_SHARED_BY_SHOTS = {
    "transition": "belongs beside shot, not in it: defaults.transition holds after every shot",
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """Fields for every job, and under `shot` for every shot. All values carry their path in the file."""

    job: Tree | None = None
    shot: Tree | None = None

    @classmethod
    def of(cls, tree: Tree) -> Defaults:
        """The defaults in a mapping, less what cannot be shared (`refused` tells it)."""
        stamped = tree.stamped(("defaults",))
        shot = stamped.child("shot")
        if shot is not None and isinstance(shot.value, dict):
            shot = shot.without(*NOT_SHARED_BY_SHOTS)
        return cls(stamped.without("shot", *NOT_SHARED), shot)

    def apply(self, job: Tree) -> Tree:
        """A job as written, with what it leaves out. A shot that is only text becomes its prompt."""
        merged = overlay(job, self.job)
        shots = merged.child("shots")
        if shots is None or not isinstance(shots.value, tuple) or not isinstance(merged.value, dict):
            return merged
        full = replace(shots, value=tuple([overlay(_as_mapping(shot), self.shot) for shot in shots.value]))
        return replace(merged, value=merged.value | {"shots": full})

    def size_for(self, job: Tree) -> int:
        """About how many values `apply` gives for a job."""
        if self.job is None:
            return job.size()
        shots = job.child("shots") or self.job.child("shots")
        count = len(shots.value) if shots and isinstance(shots.value, tuple) else 0
        return job.size() + self.job.size() + count * (self.shot.size() if self.shot else 0)

    def probes(self) -> list[Tree]:
        """Jobs that hold nothing but defaults: what is wrong with them is wrong whatever the jobs say."""
        if self.job is None:
            return []
        line = self.job.line
        alone = Defaults(self.job.without("shots"), self.shot)
        probes = [alone.apply(Tree({"shots": Tree((Tree({}, line),), line)}, line))]
        if shots := self.job.child("shots"):
            probes.append(Defaults(None, self.shot).apply(Tree({"shots": shots}, line)))
        return probes


def refused(tree: Tree) -> list[tuple[Path, str]]:
    """Fields of a defaults mapping that cannot be shared, and why."""
    found: list[tuple[Path, str]] = [((key,), why) for key, why in NOT_SHARED.items() if tree.child(key)]
    shot = tree.child("shot")
    if shot is not None:
        found += [(("shot", key), why) for key, why in NOT_SHARED_BY_SHOTS.items() if shot.child(key)]
    return found


def _as_mapping(shot: Tree) -> Tree:
    if isinstance(shot.value, str):
        return Tree({"prompt": shot}, shot.line, shot.field)
    return shot
