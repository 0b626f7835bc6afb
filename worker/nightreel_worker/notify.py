"""Telling others how jobs ended: results topics and webhooks. Best effort, after the ack, and never in a job's way.

What is told can be told twice, by a worker that finds a job ended: receivers know it by its id. What cannot be told is
logged and counted; the receipt in the store is the truth.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import structlog

from nightreel_queue.errors import QueueUnavailable
from nightreel_queue.job import Job, Notify
from nightreel_queue.topics import Topic, open_topic, topic_name
from nightreel_storage.receipts import Receipt

from .errands import Errand, Errands
from .errors import Forbidden, Refused, Unreachable, WebError
from .notices import Notice, run_message
from .report import RunReport
from .settings import Settings
from .web import Web
from .webhooks import signed_headers, webhook_keys

log = structlog.get_logger()

TRY_S = 5.0  # for which a webhook's receiver may take its time
LAST_S = 2.0  # that a run stays for what is still to be told; its renderer leaves meanwhile


@dataclass(frozen=True, slots=True)
class Channel:
    """A way to tell somebody."""

    to: str
    """Who that is, as logs may say it: no path, no query."""
    send: Callable[[Notice], None]


class Notifier:
    """Tells whoever a worker's settings and a job's `notify` name. Safe to use from several threads."""

    def __init__(
        self,
        web: Web,
        *,
        results: Topic | None = None,
        topics: Mapping[str, Topic] | None = None,
        keys: Sequence[bytes] = (),
    ) -> None:
        """results: hears of every job; topics: those that jobs may name, by name; keys: without one, no webhooks."""
        self._web = web
        self._results = results
        self._topics = dict(topics or {})
        self._keys = tuple(keys)
        self._errands = Errands(lambda errand, reason: self._count(errand.notice, errand.to, reason))
        self._lock = threading.Lock()
        self.notified = 0
        """Notices that somebody took."""
        self.not_notified = 0

    @classmethod
    def of(cls, settings: Settings, web: Web) -> Self:
        """As the operator has set it up. Raises QueueUnavailable for a topic that cannot be opened."""
        secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
        return cls(
            web,
            results=open_topic(settings.results_topic) if settings.results_topic else None,
            topics={topic_name(url): open_topic(url) for url in settings.listed("notify_topics")},
            keys=webhook_keys(secret),
        )

    def check(self, job: Job) -> None:
        """Raises Refused for a job that asks for what will not be done. Asks nobody."""
        for wish in self._wishes(job.notify):
            wish()

    def tell(self, receipt: Receipt, notify: Notify | None) -> None:
        """Have a receipt told, soon. Returns at once."""
        notice = Notice.of(receipt)
        channels = [_topic_channel(self._results)] if self._results else []
        for wish in self._wishes(notify):
            try:
                channels.append(wish())
            except Refused as exc:  # that is why it failed, or its video was there before anybody asked
                self._count(notice, "", str(exc))
        for channel in {channel.to: channel for channel in channels}.values():
            self._errands.add(Errand(notice, channel.to, partial(channel.send, notice)))

    def finish(self, by: float) -> None:
        """Let what is under way come to its end, at most until `by` (monotonic seconds); nothing is told afterwards."""
        self._errands.finish(by)

    def announce(self, report: RunReport, page: str) -> None:
        """Tell the results topic that the run has ended, within a few seconds. page: where its page is, or empty."""
        try:
            if self._results:
                self._results.publish(*run_message(report, page))
        except QueueUnavailable as exc:
            log.warning("run_not_announced", to=self._results.url if self._results else "", reason=str(exc))

    def close(self) -> None:
        """Let go of all topics."""
        for topic in (self._results, *self._topics.values()):
            if topic:
                topic.close()

    def _wishes(self, notify: Notify | None) -> Iterator[Callable[[], Channel]]:
        """What a job asks for; each raises Refused where that is not offered."""
        if notify and notify.topic is not None:
            yield partial(self._topic, notify.topic)
        if notify and notify.webhook is not None:
            yield partial(self._webhook, notify.webhook)

    def _topic(self, name: str) -> Channel:
        if name not in self._topics:
            offered = ", ".join(sorted(self._topics)) or "none"
            raise Refused(
                f"notify.topic: this worker has no topic {name} for jobs (it has {offered}): name another one, or have"
                " NIGHTREEL_NOTIFY_TOPICS list it"
            )
        return _topic_channel(self._topics[name])

    def _webhook(self, url: str) -> Channel:
        if not self._keys:
            raise Refused(
                "notify.webhook: this worker sends no webhooks: leave it out, or have NIGHTREEL_WEBHOOK_SECRET set"
            )
        try:
            return Channel(self._web.origin(url), partial(self._post, url))
        except Forbidden as exc:
            raise Refused(f"notify.webhook: {exc}") from exc

    def _post(self, url: str, notice: Notice) -> None:
        """Raises WebError, which is Unreachable where another try may help."""
        headers = signed_headers(self._keys, notice.id, int(time.time()), notice.body)
        status = self._web.post(url, notice.body, headers, limit_s=TRY_S)
        if status >= 500:
            raise Unreachable(f"{self._web.origin(url)}: answered {status}: look into its logs")
        if not 200 <= status < 300:
            raise WebError(f"{self._web.origin(url)}: answered {status}: correct the webhook's address")

    def _count(self, notice: Notice, to: str, reason: str) -> None:
        with self._lock:
            self.notified += not reason
            self.not_notified += bool(reason)
        if reason:
            log.warning("not_notified", batch=notice.batch, job=notice.job, id=notice.id, to=to, reason=reason)
        else:
            log.debug("notified", batch=notice.batch, job=notice.job, id=notice.id, to=to)


def _topic_channel(topic: Topic) -> Channel:
    return Channel(topic.url, lambda notice: topic.publish(notice.body, notice.attributes))
