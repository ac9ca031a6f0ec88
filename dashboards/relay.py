"""The board "Relay": what the relay does, what it holds back, and why."""

from __future__ import annotations

from typing import Final

from dashboards.panels import (
    BYTES,
    BYTES_PER_SECOND,
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

UID: Final = "relaymark-relay"
TITLE: Final = "Relay"
VARIABLES_FROM: Final = "relay_ready"
DESCRIPTION: Final = (
    "What the relay does, what it holds back, and why. A relay that no run started has no scenario, target or run: "
    "leave these at All."
)

_BOUNDS: Final = "rate|window|too_many_streams|too_many_records"
_CAPABILITIES: Final = "capability|expired|holder|right"
_COMMITS: Final = f"run:relay_commit_seconds_bucket:rate15s{{{RUN}}}"
_TURNS: Final = f"run:relay_turn_seconds_bucket:rate15s{{{RUN}}}"


def _total(metric: str, selector: str = "") -> str:
    return f"sum({metric}{{{RUN}{selector}}})"


def _rate(metric: str, by: str = "", selector: str = "") -> str:
    grouping = f" by ({by}) " if by else ""
    return f"sum{grouping}(rate({metric}{{{RUN}{selector}}}[$__rate_interval]))"


_DURABLE: Final = _rate("relay_published_total", selector=',class="durable"')


AT_A_GLANCE: Final = (
    Figure(
        about=About(
            title="Ready",
            shows="Whether every selected relay serves new connections.",
            bad="No: it drains, or its store could not be opened; its log says which. No data: there is no relay.",
        ),
        unit="bool_yes_no",
        query=Query(f"min(relay_ready{{{RUN}}})", "ready"),
        steps=((None, "red"), (1, "green")),
        now=True,
    ),
    Figure(
        about=About(
            title="Connections",
            shows="Open WebSocket connections.",
            bad="A sudden fall: clients were cut off, and all of them will come back at once.",
        ),
        unit=COUNT,
        query=Query(_total("relay_connections"), "connections"),
    ),
    Figure(
        about=About(
            title="Deliveries",
            shows="Records given to subscribers, a second.",
            bad="Falling while connections and publishing do not: the relay is full, look at the loop.",
        ),
        unit=PER_SECOND,
        query=Query(f"sum(run:relay_deliveries:rate15s{{{RUN}}})", "deliveries"),
    ),
    Figure(
        about=About(
            title="Commit, p99",
            shows="The slowest hundredth of commits: publishers wait that long for their acknowledgement, and more.",
            bad="Above 50 ms with SQLite, above 1 ms with the memory store: the disk, or the loop.",
        ),
        unit=SECONDS,
        query=Query(f"histogram_quantile(0.99, sum by (le) ({_COMMITS}))", "p99"),
        steps=((None, "green"), (0.05, "orange"), (0.2, "red")),
    ),
    Figure(
        about=About(
            title="Loop lag",
            shows="How late the relay's last timer was.",
            bad="Above 50 ms: everything the relay does comes that late.",
        ),
        unit=SECONDS,
        query=Query(f"max(relay_loop_lag_seconds{{{RUN}}})", "lag"),
        steps=((None, "green"), (0.05, "orange"), (0.25, "red")),
    ),
    Figure(
        about=About(
            title="Memory",
            shows="Resident memory of the relay.",
            bad="Growing while connections and retained records do not.",
        ),
        unit=BYTES,
        query=Query(f"sum(run:relay_memory_bytes:sum{{{RUN}}})", "resident"),
    ),
)

TRAFFIC: Final = (
    Lines(
        about=About(
            title="Connections and streams",
            shows="Open connections, and streams that the relay keeps in memory.",
            bad="Steps down in connections; streams that grow without end while connections do not.",
        ),
        unit=COUNT,
        queries=(
            Query(_total("relay_connections"), "connections"),
            Query(_total("relay_streams"), "streams"),
        ),
    ),
    Lines(
        about=About(
            title="Handshakes",
            shows="Connections that were accepted, and those that failed their handshake, a second.",
            bad="Failed ones: scanners, clients of another version, or a storm of reconnects past the relay's bound.",
        ),
        unit=PER_SECOND,
        queries=(
            Query(_rate("relay_accepted_total"), "accepted"),
            Query(_rate("relay_rejected_total"), "failed"),
        ),
    ),
    Lines(
        about=About(
            title="Published",
            shows="Records taken from publishers, by class, a second.",
            bad="A jump that no event on the platform explains: one kind of client floods.",
        ),
        unit=PER_SECOND,
        queries=(Query(_rate("relay_published_total", "class"), "{{class}}"),),
    ),
    Lines(
        about=About(
            title="Delivered",
            shows="Records given to live subscribers, and records replayed from the store, a second.",
            bad="Replays that stay high: clients fall behind or reconnect all the time.",
        ),
        unit=PER_SECOND,
        queries=(
            Query(_rate("relay_deliveries_total"), "live"),
            Query(_rate("relay_replayed_total"), "replayed"),
        ),
    ),
    Lines(
        about=About(
            title="Network",
            shows="Bytes read from and written to clients, before TLS.",
            bad="Sent bytes flat at what the network interface can carry.",
        ),
        unit=BYTES_PER_SECOND,
        queries=(
            Query(_rate("relay_received_bytes_total"), "received"),
            Query(_rate("relay_sent_bytes_total"), "sent"),
        ),
    ),
    Lines(
        about=About(
            title="Fan-out",
            shows="Deliveries for each published record: the mean size of an audience.",
            bad="Far above what the rooms' sizes explain: clients subscribe to what they do not show.",
        ),
        unit=COUNT,
        queries=(Query(f"{_rate('relay_deliveries_total')} / {_rate('relay_published_total')}", "recipients"),),
    ),
)

LANES: Final = (
    Lines(
        about=About(
            title="Queued, by lane",
            shows="Bytes that wait because a client's socket takes no more.",
            bad="Growing: many clients are slower than their streams. The durable lane ends in lagging and closing.",
        ),
        unit=BYTES,
        queries=(Query(f"sum by (lane) (relay_queued_bytes{{{RUN}}})", "{{lane}}"),),
        stacked=True,
    ),
    Lines(
        about=About(
            title="Slow connections",
            shows="Connections whose socket is full, and connections that are replayed from the store instead.",
            bad="More than a few in a hundred: the network to the clients, or the relay's own uplink, is full.",
        ),
        unit=COUNT,
        queries=(
            Query(_total("relay_standing_connections"), "socket full"),
            Query(_total("relay_lagging_connections"), "lagging"),
        ),
    ),
    Lines(
        about=About(
            title="Ephemeral states not delivered",
            shows="Typing indicators and other states that a newer one replaced, or that were dropped, a second.",
            bad="dropped above 0: clients see old states. superseded is as designed, and free.",
        ),
        unit=PER_SECOND,
        queries=(Query(_rate("relay_ephemeral_lost_total", "reason"), "{{reason}}"),),
    ),
    Lines(
        about=About(
            title="What slowness led to",
            shows="Clients that turned lagging, clients closed for slowness, and gaps reported, a second.",
            bad="closed: those users see a reconnect. gaps: they missed records that are no longer held.",
        ),
        unit=PER_SECOND,
        queries=(
            Query(_rate("relay_lagging_total"), "turned lagging"),
            Query(_rate("relay_slow_closed_total"), "closed"),
            Query(_rate("relay_gaps_total"), "gaps"),
        ),
        width=24,
    ),
)

STORE: Final = (
    Heat(
        about=About(
            title="Commit latency",
            shows="How long commits took, as counts by duration: from taking a batch to its commit.",
            bad="A second band far above the first: some commits wait for the disk or for a checkpoint.",
        ),
        expr=f"sum by (le) (rate(relay_commit_seconds_bucket{{{RUN}}}[$__rate_interval]))",
    ),
    Lines(
        about=About(
            title="Commit latency, percentiles",
            shows="Percentiles of commits, from the merged histogram; buckets are powers of two.",
            bad="p99 above 50 ms with SQLite: publishers feel it. p99.9 alone: checkpoints.",
        ),
        unit=SECONDS,
        queries=percentiles(_COMMITS),
        width=12,
        log=True,
    ),
    Lines(
        about=About(
            title="Waiting for a commit",
            shows="Durable bytes that gather while a commit is under way.",
            bad="Above the line at 1 MiB an alert fires; at 4 MiB the relay refuses further durable records.",
        ),
        unit=BYTES,
        queries=(Query(_total("relay_commit_waiting_bytes"), "waiting"),),
        limit=1_048_576,
    ),
    Lines(
        about=About(
            title="Commits",
            shows="Batches committed a second, and durable records in each.",
            bad="Few commits with many records in each: commits are slow. None while records are published: it stands.",
        ),
        unit=COUNT,
        queries=(
            Query(_rate("relay_store_commits_total"), "commits a second"),
            Query(f"{_DURABLE} / {_rate('relay_store_commits_total')}", "records a commit"),
        ),
    ),
    Lines(
        about=About(
            title="Store failures and forgetting",
            shows="Commits and reads that the store refused, and records that it forgot by age, quorum or space, a second.",
            bad="Any failure: durable messages do not get through. Forgetting while clients lag: they will see gaps.",
        ),
        unit=PER_SECOND,
        queries=(
            Query(_rate("relay_commit_failures_total"), "commits refused"),
            Query(_rate("relay_read_failures_total"), "reads refused"),
            Query(_rate("relay_store_trimmed_records_total"), "records forgotten"),
        ),
    ),
)

LOOP: Final = (
    Heat(
        about=About(
            title="Turns of the loop",
            shows="How long one turn of the loop kept all others waiting, as counts by duration.",
            bad="Turns of 10 ms and more: a private chat waits for a large room.",
        ),
        expr=f"sum by (le) (rate(relay_turn_seconds_bucket{{{RUN}}}[$__rate_interval]))",
    ),
    Lines(
        about=About(
            title="Turns of the loop, percentiles",
            shows="Percentiles of turns, from the merged histogram, and how late the last timer was.",
            bad="p99.9 above 50 ms: pauses that every client can feel.",
        ),
        unit=SECONDS,
        queries=(*percentiles(_TURNS), Query(f"max(relay_loop_lag_seconds{{{RUN}}})", "timer late")),
        width=12,
        log=True,
    ),
    Lines(
        about=About(
            title="Processor",
            shows="Share of one core that each relay uses, its store's thread included.",
            bad="Near 100 %: it is full, and latency rises with every further message.",
        ),
        unit=SHARE,
        queries=(Query(_rate("process_cpu_seconds_total", "run, instance", ',job="relay"'), "{{instance}} {{run}}"),),
        limit=0.9,
    ),
    Lines(
        about=About(
            title="Memory",
            shows="Resident memory of each relay.",
            bad="Growing while connections and retained records do not: a leak.",
        ),
        unit=BYTES,
        queries=(
            Query(
                f'sum by (run, instance) (process_resident_memory_bytes{{{RUN},job="relay"}})', "{{instance}} {{run}}"
            ),
        ),
    ),
    Lines(
        about=About(
            title="Descriptors",
            shows="Open file descriptors; a connection takes one.",
            bad="Near the process's limit (ulimit -n): further connections fail.",
        ),
        unit=COUNT,
        queries=(Query(f'max by (run, instance) (process_open_fds{{{RUN},job="relay"}})', "{{instance}} {{run}}"),),
    ),
)

REFUSALS: Final = (
    Lines(
        about=About(
            title="Rate limits and bounds",
            shows="Requests refused because a client asked for too much, by code, a second.",
            bad="rate: one kind of client floods, or the limits are too low for it. window: it does not wait for answers.",
        ),
        unit=PER_SECOND,
        queries=(Query(_rate("relay_refused_total", "code", f',code=~"{_BOUNDS}"'), "{{code}}"),),
    ),
    Lines(
        about=About(
            title="Capabilities refused",
            shows="Capabilities that were refused, by code, a second.",
            bad="A rise: expired is a late minting service, capability a forged one, holder a stolen one.",
        ),
        unit=PER_SECOND,
        queries=(
            Query(_rate("relay_refused_total", "code", f',code=~"{_CAPABILITIES}"'), "{{code}}"),
            Query(_rate("relay_capability_refusals_total"), "refused before their rights were looked at"),
        ),
    ),
    Lines(
        about=About(
            title="Other refusals",
            shows="Everything else that was refused, by code, a second.",
            bad="malformed, sealed_form: a client of another version or an attack. store: nothing durable gets through.",
        ),
        unit=PER_SECOND,
        queries=(Query(_rate("relay_refused_total", "code", f',code!~"{_BOUNDS}|{_CAPABILITIES}"'), "{{code}}"),),
    ),
    Lines(
        about=About(
            title="Capabilities remembered",
            shows="Subscriptions whose capability was remembered, against those whose signature had to be checked.",
            bad="Checks that stay high in a storm of reconnects: 0.1 ms of processor each.",
        ),
        unit=PER_SECOND,
        queries=(
            Query(_rate("relay_capability_hits_total"), "remembered"),
            Query(_rate("relay_capability_misses_total"), "checked"),
        ),
        width=12,
    ),
    Lines(
        about=About(
            title="Streams erased",
            shows="Streams that their owners erased, a second.",
            bad="More than users would do: a stolen capability with the right to erase.",
        ),
        unit=PER_SECOND,
        queries=(Query(_rate("relay_erased_streams_total"), "erased"),),
        width=12,
    ),
)

ROWS: Final = (
    Row("At a glance", AT_A_GLANCE),
    Row("Traffic", TRAFFIC),
    Row("Lanes and slow clients", LANES),
    Row("The store", STORE),
    Row("The loop", LOOP),
    Row("Refusals", REFUSALS),
)
