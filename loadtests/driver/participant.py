"""One participant: its plan, its connections, and what it sends and gets on them.

waiting --enter--> joining --(every stream attached)--> joined --leave--> leaving --(every stream left)--> gone
"""

from __future__ import annotations

from functools import partial
from typing import Final

from loadtests.accounting.settlement import Finals
from loadtests.driver.context import Context
from loadtests.driver.link import Link
from loadtests.driver.publisher import Due, Publisher
from loadtests.driver.recipient import Recipient
from loadtests.workload.traffic import Action, ParticipantPlan
from relay.capability import Right

_SUBSCRIBE: Final = int(Right.SUBSCRIBE)
_PUBLISH: Final = int(Right.PUBLISH)


class Participant:
    """A participant of the plan on the event loop of its worker.

    It has one connection, or one for each stream and direction where the relay's connections are for one stream.
    """

    __slots__ = (
        "_actions",
        "_context",
        "_joining_ns",
        "_plan",
        "_resuming_ns",
        "attached",
        "index",
        "joined",
        "late",
        "leaving",
        "links",
        "publisher",
        "recipient",
    )

    def __init__(self, context: Context, plan: ParticipantPlan) -> None:
        self._context = context
        self._plan = plan
        self.index = plan.participant
        self.attached = False
        """It has its connections, and every stream of its plan on them."""
        self.joined = False
        """Everything that the plan attaches it to was attached at least once."""
        self.late = bool(plan.connect_ns)
        """It joins only while the load goes on."""
        self.leaving = False
        self._joining_ns = 0
        self._resuming_ns = 0
        self._actions = iter(plan.actions())
        slow = plan.read_bytes_per_s is not None
        self.publisher = Publisher(context, self.index, timed=not slow)
        self.recipient = Recipient(
            context, self.index, self.publisher, slow=slow, on_caught_up=self._look_whether_caught_up
        )
        for membership in plan.memberships:
            if membership.rights & _SUBSCRIBE:
                rule = plan.receipts.get(membership.stream)
                self.recipient.add(membership.stream, membership.peer, rule)
        self.links = self._make_links()

    def _make_links(self) -> list[Link]:
        context, plan = self._context, self._plan
        uses = [(membership, int(membership.rights)) for membership in plan.memberships]
        if context.features.one_stream:
            uses = [(membership, use) for membership, rights in uses for use in (_SUBSCRIBE, _PUBLISH) if rights & use]
        attaches = [context.credentials.attach(membership.stream, self.index, use) for membership, use in uses]
        groups = [[attach] for attach in attaches] if context.features.one_stream else [attaches]
        links = [
            Link(
                context,
                self,
                self.recipient,
                self.publisher,
                group,
                place_in_line=self.index,
                read_bytes_per_s=plan.read_bytes_per_s,
            )
            for group in groups
        ]
        link_of = {stream: link for link in links for stream in link.publishes}
        for membership in plan.memberships:
            if membership.rights & _PUBLISH:
                self.publisher.add(membership.stream, membership.peer, link_of[membership.stream])
        return links

    # -- coming and going ----------------------------------------------------------------------------

    def enter(self, intended_ns: int) -> None:
        """Connect now; the join counts from `intended_ns`."""
        self._joining_ns = intended_ns
        self._context.presence.joins.begin(intended_ns)
        for link in self.links:
            link.connect()

    def start(self, start_ns: int) -> None:
        """The load begins: follow the plan, whose times count from `start_ns`."""
        at = self._context.loop.at
        if self._plan.connect_ns:
            at(start_ns + self._plan.connect_ns, lambda due_ns, now_ns: self.enter(due_ns))
        for cut in self._plan.cuts:
            at(start_ns + cut.at_ns, partial(self._cut, cut.away_ns))
        self._schedule_next()

    def _schedule_next(self) -> None:
        action = next(self._actions, None)
        if action is not None:
            self._context.loop.at(self._context.phase.start_ns + action.offset_ns, partial(self._act, action))

    def _act(self, action: Action, due_ns: int, now_ns: int) -> None:
        if self._context.phase.sending and not self.leaving:
            self._schedule_next()
            self.publisher.act(action, due_ns, now_ns)

    def publish(self, due: Due) -> None:
        """Send something that is not in the plan."""
        self.publisher.publish(due)

    def _cut(self, away_ns: int, due_ns: int, _now_ns: int) -> None:
        if self._context.phase.sending and any(link.there for link in self.links):
            self._context.counts.cuts += 1
            for link in self.links:
                link.cut(due_ns + away_ns)

    def read_at_full_speed(self) -> None:
        """The load is over: who read slowly reads as fast as it can."""
        for link in self.links:
            link.read_at_full_speed()

    def leave(self) -> None:
        """Unsubscribe from everything: at the end of the run, or because Locust stops this user."""
        self.leaving = self.publisher.leaving = True
        if self.recipient.left is None:
            self.recipient.left = set()
        for link in self.links:
            link.leave()

    def waits(self, finals: Finals, since_ns: int, silent_ns: int) -> bool:
        """Return whether something is still to come. Where nobody can say, it is taken to be until nothing has come
        since `silent_ns`, which is to be after `since_ns`."""
        waits = self.recipient.waits(finals)
        return max(self.recipient.came_ns, since_ns) > silent_ns if waits is None else waits

    @property
    def gone(self) -> bool:
        """It has everything that it will get: every subscription ended in order."""
        left = self.recipient.left
        return left is not None and all(left.issuperset(link.receives) for link in self.links if link.asked)

    def finish(self) -> None:
        """Settle the accounts of subscriptions that did not end in order, and hang up."""
        self.recipient.finish()
        for link in self.links:
            link.hang_up()

    # -- what its links tell -------------------------------------------------------------------------

    def link_attached(self, now_ns: int) -> None:
        """One link has all its streams: once all have, the participant is there."""
        if self.attached or not all(link.attached for link in self.links):
            return
        context = self._context
        self.attached = True
        context.presence.attached += 1
        if not self.joined:
            self.joined = True
            context.meters.join_times(now_ns - self._joining_ns)
            context.presence.enter(late=self.late, now_ns=now_ns)
        self._look_whether_caught_up(now_ns)
        self.publisher.resume()

    def link_lost(self, link: Link) -> None:
        """One link is gone for now: without it the participant is not there."""
        self._context.presence.attached -= self.attached
        self.attached = False
        self.recipient.interrupt(link.receives)
        self.publisher.cut_off(link.publishes)

    def link_returns(self, due_ns: int) -> None:
        """One link connects again: from now on the resume is timed."""
        if self.joined and not self._resuming_ns:
            self._resuming_ns = due_ns
            self._context.presence.resumes.begin(due_ns)

    def _look_whether_caught_up(self, now_ns: int) -> None:
        if self._resuming_ns and self.attached and not self.recipient.catching_up:
            self._context.meters.resume_times(now_ns - self._resuming_ns)
            self._context.presence.resumes.done_ns.append(now_ns)
            self._resuming_ns = 0
