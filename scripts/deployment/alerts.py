"""Alert policies, from the files in alerts/, and whom they tell. Google names them; we know them by what they are called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .settings import Settings
from .steps import Command, Hand, Step, gone, holds, listed

FILES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))
POLICIES: Command = ("gcloud", "alpha", "monitoring", "policies")
CHANNELS: Command = ("gcloud", "beta", "monitoring", "channels")


def steps(settings: Settings, folder: Path, hand: Hand) -> Iterator[Step]:
    """Each is made when the one before is done: a policy names the channel, whose id Google chooses. Filled files go
    into `folder`."""
    if settings.alert_email:
        yield _channel(settings, hand)
    for file in FILES:
        yield _policy(settings, file, folder, hand)


def removals(settings: Settings, hand: Hand) -> Iterator[Step]:
    """Policies first: a channel that one names is not deleted."""
    for file in FILES:
        yield _gone(settings, hand, POLICIES, _filled(settings, file)["displayName"])
    yield _gone(settings, hand, CHANNELS, _channel_name(settings))


def _channel(settings: Settings, hand: Hand) -> Step:
    name, project = _channel_name(settings), f"--project={settings.project}"
    address = f"email_address={settings.alert_email}"
    look = _list(settings, CHANNELS)
    wanted = {"labels": {"email_address": settings.alert_email}}
    return Step(
        f"alerts are told to {settings.alert_email}",
        look=look,
        state=listed("displayName", name, lambda found: holds(found, wanted)),
        make=(*CHANNELS, "create", f"--display-name={name}", "--type=email", f"--channel-labels={address}", project),
        mend=(*CHANNELS, "update", _id(hand, look, name), f"--update-channel-labels={address}", project),
    )


def _policy(settings: Settings, file: Path, folder: Path, hand: Hand) -> Step:
    wanted = _filled(settings, file)
    if settings.alert_email:
        wanted["notificationChannels"] = [_id(hand, _list(settings, CHANNELS), _channel_name(settings))]
    filled = folder / f"alert-{file.name}"
    filled.write_text(yaml.safe_dump(wanted, sort_keys=False))
    look, project = _list(settings, POLICIES), f"--project={settings.project}"
    name = wanted["displayName"]
    return Step(
        f"an alert, as {file.name} says: {name.partition(': ')[2]}",
        look=look,
        state=listed("displayName", name, lambda found: holds(found, wanted)),
        make=(*POLICIES, "create", f"--policy-from-file={filled}", project),
        mend=(*POLICIES, "update", _id(hand, look, name), f"--policy-from-file={filled}", project),
    )


def _gone(settings: Settings, hand: Hand, kind: Command, name: str) -> Step:
    look = _list(settings, kind)
    return Step(
        f"no {kind[-1]} {name}",
        look=look,
        state=gone(listed("displayName", name)),
        make=(*kind, "delete", _id(hand, look, name), f"--project={settings.project}", "--quiet"),
    )


def _filled(settings: Settings, file: Path) -> Any:
    return yaml.safe_load(settings.fill(file.read_text(), number="", tag=""))


def _channel_name(settings: Settings) -> str:
    return f"{settings.name}: operator"


def _list(settings: Settings, kind: Command) -> Command:
    return (*kind, "list", f"--project={settings.project}")


def _id(hand: Hand, look: Command, name: str) -> str:
    """Google's name of the one that is called so; words in capitals while there is none, or nobody may be asked."""
    found = [] if hand.dry_run else hand.look(look) or []
    return next((str(each["name"]) for each in found if each.get("displayName") == name), f"ID_OF_{look[-3].upper()}")
