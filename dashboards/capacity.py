"""The board "Capacity": how much one relay carries, and what a delivery and a connection cost."""

from __future__ import annotations

from typing import Final

from dashboards.panels import BYTES, COUNT, PER_SECOND, RUN, SECONDS, SHARE, About, Figure, Lines, Query, Row, Scatter

UID: Final = "relaymark-capacity"
TITLE: Final = "Capacity"
VARIABLES_FROM: Final = "loadtest_running"
"""Runs against other relays have latencies to show, too."""
DESCRIPTION: Final = (
    "How much one relay carries, and what a delivery and a connection cost. Select several runs with rising load to see "
    "where latency leaves the floor: that is the knee, and a relay is planned to stay below it."
)

_BY: Final = "scenario, target, run"
_DELIVERIES: Final = f"sum by ({_BY}) (run:relay_deliveries:rate15s{{{RUN}}})"
_CPU: Final = f"sum by ({_BY}) (run:relay_cpu_seconds:rate15s{{{RUN}}})"
_CONNECTIONS: Final = f"sum by ({_BY}) (run:relay_connections:sum{{{RUN}}})"
_MEMORY: Final = f"sum by ({_BY}) (run:relay_memory_bytes:sum{{{RUN}}})"
_P99: Final = (
    f"histogram_quantile(0.99, sum by ({_BY}, le) (run:loadtest_delivery_seconds_bucket:rate15s"
    f'{{{RUN},kind="message"}}))'
)
_GIB: Final = "1073741824"

AT_A_GLANCE: Final = (
    Figure(
        about=About(
            title="Deliveries, highest",
            shows="The most deliveries a second that the selected relays made in the time shown.",
            bad="Below what the platform's evening peak needs.",
        ),
        unit=PER_SECOND,
        query=Query(f"max(max_over_time(run:relay_deliveries:rate15s{{{RUN}}}[$__range]))", "highest"),
        width=6,
    ),
    Figure(
        about=About(
            title="Processor for a delivery",
            shows="Processor time of the relay for each delivery.",
            bad="Rising from one release to the next: the relay became slower.",
        ),
        unit=SECONDS,
        query=Query(
            f"sum(run:relay_cpu_seconds:rate15s{{{RUN}}}) / sum(run:relay_deliveries:rate15s{{{RUN}}})", "a delivery"
        ),
        width=6,
    ),
    Figure(
        about=About(
            title="Connections for a gigabyte",
            shows="Open connections for each GiB of resident memory, interpreter and retained records included.",
            bad="Low with many connections: queues or retained records take the memory.",
        ),
        unit=COUNT,
        query=Query(
            f"sum(run:relay_connections:sum{{{RUN}}}) / (sum(run:relay_memory_bytes:sum{{{RUN}}}) / {_GIB})", "a GiB"
        ),
        width=6,
    ),
    Figure(
        about=About(
            title="Room left",
            shows="Share of its core that the busiest relay has left; a relay uses one core and its store's thread.",
            bad="Below 30 %: a flash crowd will fill it.",
        ),
        unit=SHARE,
        query=Query(
            f'clamp_min(1 - max(rate(process_cpu_seconds_total{{{RUN},job="relay"}}[$__rate_interval])), 0)', "left"
        ),
        width=6,
        steps=((None, "red"), (0.1, "orange"), (0.3, "green")),
    ),
)

KNEE: Final = (
    Scatter(
        about=About(
            title="Throughput against latency",
            shows="Each point is a moment of a run: deliveries a second, and the p99 of messages then.",
            bad="Points that leave the floor: from that throughput on, the relay is over its knee.",
        ),
        x=Query(_DELIVERIES, "deliveries a second"),
        x_unit=PER_SECOND,
        y=Query(_P99, "p99 of messages"),
        y_unit=SECONDS,
    ),
    Scatter(
        about=About(
            title="Throughput against processor",
            shows="Each point is a moment of a run: deliveries a second, and the relay's share of a core then.",
            bad="A line that bends upwards: a delivery costs more under load. Above 90 % it is full.",
        ),
        x=Query(_DELIVERIES, "deliveries a second"),
        x_unit=PER_SECOND,
        y=Query(_CPU, "share of a core"),
        y_unit=SHARE,
    ),
)

COSTS: Final = (
    Lines(
        about=About(
            title="Processor for a delivery",
            shows="Processor time of the relay for each delivery, by run. High when little is sent: idling costs too.",
            bad="Higher than in a run of an earlier release under the same load.",
        ),
        unit=SECONDS,
        queries=(Query(f"{_CPU} / {_DELIVERIES}", "{{target}} {{run}}"),),
        log=True,
    ),
    Lines(
        about=About(
            title="Connections for a gigabyte",
            shows="Open connections for each GiB of the relay's resident memory, by run.",
            bad="Falling while connections rise: each one takes more than it should.",
        ),
        unit=COUNT,
        queries=(Query(f"{_CONNECTIONS} / ({_MEMORY} / {_GIB})", "{{target}} {{run}}"),),
    ),
    Lines(
        about=About(
            title="Memory and what is in it",
            shows="Resident memory of the relay by run, and the part that waits in outboxes.",
            bad="Outboxes that take much of it: slow clients, not connections, set the size of the host.",
        ),
        unit=BYTES,
        queries=(
            Query(_MEMORY, "{{target}} {{run}}"),
            Query(f"sum by ({_BY}) (relay_queued_bytes{{{RUN}}})", "queued {{run}}"),
        ),
    ),
    Lines(
        about=About(
            title="Achieved of offered",
            shows="Sends that were made, of those that the schedule asked for, by run.",
            bad="Below 100 %: that load was not offered, and the run says nothing about it.",
        ),
        unit=SHARE,
        queries=(
            Query(
                f"sum by ({_BY}) (run:loadtest_sent:rate15s{{{RUN}}}) / "
                f"sum by ({_BY}) (run:loadtest_due:rate15s{{{RUN}}})",
                "{{target}} {{run}}",
            ),
        ),
        width=12,
    ),
    Lines(
        about=About(
            title="Latency by run, p99",
            shows="The slowest hundredth of messages by run, from the intended send.",
            bad="Above the objective of 100 ms: the load is over what this relay carries.",
        ),
        unit=SECONDS,
        queries=(Query(_P99, "{{target}} {{run}}"),),
        width=12,
        log=True,
        limit=0.1,
    ),
)

ROWS: Final = (
    Row("At a glance", AT_A_GLANCE),
    Row("Where the knee is", KNEE),
    Row("What it costs", COSTS),
)
