"""The board "Load test": what the participants of a run notice, and whether the run may be believed."""

from __future__ import annotations

from typing import Final

from dashboards.panels import (
    COUNT,
    PER_SECOND,
    RUN,
    SECONDS,
    SHARE,
    About,
    Figure,
    Heat,
    Lines,
    Query,
    Row,
    percentiles,
)

UID: Final = "relaymark-loadtest"
TITLE: Final = "Load test"
VARIABLES_FROM: Final = "loadtest_running"
DESCRIPTION: Final = (
    "What the participants of a run notice, and whether the run may be believed. Latency counts from the intended send, "
    "so a late generator shows as latency here and as lag in its own row."
)

_DELIVERIES: Final = f"run:loadtest_delivery_seconds_bucket:rate15s{{{RUN}}}"
_FROM_SEND: Final = f"run:loadtest_delivery_from_send_seconds_bucket:rate15s{{{RUN}}}"


def _buckets(metric: str) -> str:
    return f"rate({metric}_bucket{{{RUN}}}[$__rate_interval])"


def _p99(buckets: str, by: str = "") -> str:
    return f"histogram_quantile(0.99, sum by ({by}le) ({buckets}))"


def _outcome(outcomes: str) -> str:
    return f'loadtest_ledger_total{{{RUN},outcome=~"{outcomes}"}}'


AT_A_GLANCE: Final = (
    Figure(
        about=About(
            title="Load",
            shows="Whether load is offered now.",
            bad="No, or no data, while a run should be under way: it ended, or its workers did.",
        ),
        unit="bool_yes_no",
        query=Query(f"max(loadtest_running{{{RUN}}})", "running"),
        steps=((None, "text"), (1, "green")),
        now=True,
    ),
    Figure(
        about=About(
            title="Participants",
            shows="Open connections of the harness.",
            bad="Fewer than the run's participants after the joins: some could not connect or were cut off.",
        ),
        unit=COUNT,
        query=Query(f"sum(loadtest_connections{{{RUN}}})", "connections"),
    ),
    Figure(
        about=About(
            title="Messages, p99",
            shows="The slowest hundredth of chat messages, from their intended send to the recipient.",
            bad="Above 100 ms, the objective: people notice.",
        ),
        unit=SECONDS,
        query=Query(_p99(f'run:loadtest_delivery_seconds_bucket:rate15s{{{RUN},kind="message"}}'), "p99"),
        steps=((None, "green"), (0.1, "red")),
    ),
    Figure(
        about=About(
            title="Achieved",
            shows="Sends that were made, of those that the schedule asked for.",
            bad="Below 100 %: the generator cannot keep up, and the figures are its own.",
        ),
        unit=SHARE,
        query=Query(f"sum(loadtest_sent_total{{{RUN}}}) / sum(loadtest_due_total{{{RUN}}})", "achieved"),
        steps=((None, "red"), (0.99, "orange"), (0.999, "green")),
    ),
    Figure(
        about=About(
            title="Lost",
            shows="Durable records that a recipient was owed and did not get; 0 until the run has been settled.",
            bad="Anything but 0.",
        ),
        unit=COUNT,
        query=Query(f"sum({_outcome('lost')})", "lost"),
        steps=((None, "text"), (1, "red")),
    ),
    Figure(
        about=About(
            title="Clock error",
            shows="How far every one-way time may be off, at most.",
            bad="Near or above the latencies shown: they say nothing then.",
        ),
        unit=SECONDS,
        query=Query(f"max(loadtest_clock_error_seconds{{{RUN}}})", "error"),
    ),
)

LATENCY: Final = (
    Heat(
        about=About(
            title="Delivery of messages",
            shows="Chat messages by how long they took from their intended send to the recipient.",
            bad="A second band above the first, or the whole band rising: some or all wait.",
        ),
        expr=f'sum by (le) (rate(loadtest_delivery_seconds_bucket{{{RUN},kind="message"}}[$__rate_interval]))',
    ),
    Lines(
        about=About(
            title="Delivery of messages, percentiles",
            shows="Percentiles of chat messages, read from the merged histogram.",
            bad="p99 above the objective of 100 ms. p99.9 alone: pauses, see the relay's loop.",
        ),
        unit=SECONDS,
        queries=percentiles(f'run:loadtest_delivery_seconds_bucket:rate15s{{{RUN},kind="message"}}'),
        width=12,
        log=True,
        limit=0.1,
    ),
    Lines(
        about=About(
            title="Delivery by kind, p99",
            shows="The slowest hundredth of each kind of record: messages, receipts, typing, tips, media.",
            bad="One kind far above the others: it is held back, or it holds the others back.",
        ),
        unit=SECONDS,
        queries=(Query(_p99(_DELIVERIES, "kind, "), "{{kind}}"),),
        width=12,
        log=True,
    ),
    Lines(
        about=About(
            title="From intended and from actual send, p99",
            shows="The same deliveries of all kinds, counted from when they should have been sent and from when they were.",
            bad="A gap between the two: the generator sent late, and the lower curve leaves that wait out.",
        ),
        unit=SECONDS,
        queries=(Query(_p99(_DELIVERIES), "from intended send"), Query(_p99(_FROM_SEND), "from actual send")),
        width=12,
        log=True,
    ),
    Lines(
        about=About(
            title="Acknowledgement",
            shows="From publishing a durable record to the relay's acknowledgement.",
            bad="Far above the relay's commits: publishers wait for the loop, not for the store.",
        ),
        unit=SECONDS,
        queries=percentiles(_buckets("loadtest_ack_seconds")),
        log=True,
    ),
    Lines(
        about=About(
            title="Joining",
            shows="From connecting to being subscribed.",
            bad="Seconds: a crowd arrives faster than the relay shakes hands.",
        ),
        unit=SECONDS,
        queries=percentiles(_buckets("loadtest_join_seconds")),
        log=True,
    ),
    Lines(
        about=About(
            title="Resuming",
            shows="From connecting again to having caught up.",
            bad="Longer than joining by far: replays wait for the store.",
        ),
        unit=SECONDS,
        queries=percentiles(_buckets("loadtest_resume_seconds")),
        log=True,
    ),
)

LOAD: Final = (
    Lines(
        about=About(
            title="Offered and achieved",
            shows="Sends that the schedule asked for, sends that were made, and durable ones that were acknowledged, a second.",
            bad="made below asked for: the generator is full. acknowledged falling behind: the relay is.",
        ),
        unit=PER_SECOND,
        queries=(
            Query(f"sum(run:loadtest_due:rate15s{{{RUN}}})", "asked for"),
            Query(f"sum(run:loadtest_sent:rate15s{{{RUN}}})", "made"),
            Query(f"sum(rate(loadtest_acknowledged_total{{{RUN}}}[$__rate_interval]))", "acknowledged"),
        ),
    ),
    Lines(
        about=About(
            title="Sent, by kind",
            shows="Sends by kind, a second: the shape of the workload.",
            bad="A kind missing that the scenario has.",
        ),
        unit=PER_SECOND,
        queries=(Query(f"sum by (kind) (run:loadtest_sent:rate15s{{{RUN}}})", "{{kind}}"),),
        stacked=True,
    ),
    Lines(
        about=About(
            title="Delivered, by kind",
            shows="Deliveries to recipients by kind, a second.",
            bad="Falling while sends do not.",
        ),
        unit=PER_SECOND,
        queries=(Query(f"sum by (kind) (run:loadtest_delivered:rate15s{{{RUN}}})", "{{kind}}"),),
        stacked=True,
    ),
)

LEDGER: Final = (
    Lines(
        about=About(
            title="What went wrong",
            shows="Records lost, duplicated, reordered or late, summed over recipients; 0 until the run has been settled.",
            bad="Anything but 0; reordered and late may follow an injected fault.",
        ),
        unit=COUNT,
        queries=(Query(f"sum by (outcome) ({_outcome('lost|duplicated|reordered|late')})", "{{outcome}}"),),
    ),
    Lines(
        about=About(
            title="Owed and delivered",
            shows="Records that recipients are owed, and those they got; 0 until the run has been settled.",
            bad="delivered below expected at the end: the difference is lost.",
        ),
        unit=COUNT,
        queries=(Query(f"sum by (outcome) ({_outcome('expected|delivered|boundary')})", "{{outcome}}"),),
    ),
    Lines(
        about=About(
            title="States and refusals",
            shows="Ephemeral states that a newer one replaced or that were dropped, and sends that the relay refused.",
            bad="dropped: the relay or a client was too slow. refused: the load breaks the relay's limits.",
        ),
        unit=COUNT,
        queries=(
            Query(f"sum by (outcome) ({_outcome('superseded|dropped')})", "{{outcome}}"),
            Query(f"sum(loadtest_refused_total{{{RUN}}})", "refused"),
        ),
    ),
)

GENERATOR: Final = (
    Lines(
        about=About(
            title="Schedule lag",
            shows="How late the generator sent, against its schedule.",
            bad="p99 of some ms and more: its figures are its own. Add workers, or processors.",
        ),
        unit=SECONDS,
        queries=percentiles(_buckets("loadtest_schedule_lag_seconds")),
        log=True,
    ),
    Lines(
        about=About(
            title="Loop lag",
            shows="How late the generator's loop ran.",
            bad="p99 of 10 ms and more: it reads late, and latencies look longer than they were.",
        ),
        unit=SECONDS,
        queries=percentiles(_buckets("loadtest_loop_lag_seconds")),
        log=True,
    ),
    Lines(
        about=About(
            title="Busiest worker",
            shows="Share of one core that the busiest worker process used.",
            bad="Above the line at 90 %: the run is INVALID when it stays there. Add workers.",
        ),
        unit=SHARE,
        queries=(Query(f"max(loadtest_worker_cpu_ratio{{{RUN}}})", "processor"),),
        limit=0.9,
    ),
    Lines(
        about=About(
            title="Clock error",
            shows="Bound on the error of every one-way time, over all workers.",
            bad="Near the latencies shown. It falls with more exchanges and a quieter network.",
        ),
        unit=SECONDS,
        queries=(Query(f"max(loadtest_clock_error_seconds{{{RUN}}})", "error"),),
    ),
    Lines(
        about=About(
            title="Deliveries before they were sent",
            shows="Samples that are negative, a second: a clock is off by more than the latency.",
            bad="Anything but 0 on one machine; over several it must stay within the clock error.",
        ),
        unit=PER_SECOND,
        queries=(Query(f"sum(rate(loadtest_negative_samples_total{{{RUN}}}[$__rate_interval]))", "negative"),),
    ),
    Lines(
        about=About(
            title="Workers and connections",
            shows="Processes that offer the load, and their open connections.",
            bad="A worker that disappears: the run loses its participants and is INVALID.",
        ),
        unit=COUNT,
        queries=(
            Query(f"sum(loadtest_workers{{{RUN}}})", "workers"),
            Query(f"sum(loadtest_connections{{{RUN}}})", "connections"),
        ),
    ),
)

ROWS: Final = (
    Row("At a glance", AT_A_GLANCE),
    Row("How long it took", LATENCY),
    Row("Offered and achieved", LOAD),
    Row("The ledger", LEDGER),
    Row("Is the generator fit?", GENERATOR),
)
