"""The dashboards as code: `make dashboards` writes fleet.json, node.json, bill.json and isolated.json beside this file.

They ask Prometheus for kickwatch's series and for what deploy/prometheus/rules.yml records. Import them into Grafana
11.6 or later; the data source is chosen there.
"""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as words
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

HERE = Path(__file__).parent
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
PAGE = 'stream=~"attributed|burst|signature|canary"'
NODE, RELEASE = 'instance=~"$instance"', 'release=~"$release"'
WIDTH = 24
BY_CELL = "reason, origin, path"
STEP_QUANTILE = "histogram_quantile(0.5, sum by ({by}, le) ({buckets}))"

Panel = timeseries.Panel | stat.Panel | table.Panel


def with_release(expression: str, *more: str) -> str:
    """The series with the kernel release of their node; `more`: their labels that no other series of a node has."""
    ignored = ", ".join((*more, "release"))
    return f"{expression} * ignoring ({ignored}) group_left (release) instance:kickwatch_kernel:info{{{RELEASE}}}"


def query(expression: str, legend: str = "", *, name: str = "A", rows: bool = False) -> prometheus.Dataquery:
    """A query for lines, or for the rows of a table. `name`: one for each query of a panel."""
    made = prometheus.Dataquery().ref_id(name).expr(expression).datasource(SOURCE).legend_format(legend or "__auto")
    return made.instant().format(PromQueryFormat.TABLE) if rows else made.range()


def lines(
    title: str, text: str, *queries: tuple[str, str], unit: str = "short", log: bool = False, limit: float | None = None
) -> timeseries.Panel:
    """Lines over time. `log`: a logarithmic scale. `limit`: a red line."""
    made = timeseries.Panel().title(title).description(text).unit(unit).datasource(SOURCE).span(WIDTH // 2).height(8)
    made = made.legend(
        common.VizLegendOptions()
        .display_mode(words.LegendDisplayMode.LIST)
        .placement(words.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    if log:
        made = made.scale_distribution(common.ScaleDistributionConfig().type(words.ScaleDistribution.LOG).log(10))
    if limit is not None:
        steps = [models.Threshold(value=None, color="transparent"), models.Threshold(value=limit, color="red")]
        made = made.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        made = made.thresholds_style(common.GraphThresholdsStyleConfig().mode(words.GraphThresholdsStyleMode.LINE))
    for name, (expression, legend) in zip("ABC", queries, strict=False):
        made = made.with_target(query(expression, legend, name=name))
    return made


def figures(title: str, text: str, expression: str, legend: str, unit: str = "short") -> stat.Panel:
    """The newest value of each series, large."""
    made = stat.Panel().title(title).description(text).unit(unit).datasource(SOURCE).span(WIDTH // 2).height(5)
    return made.with_target(query(expression, legend))


def rows(title: str, text: str, expression: str) -> table.Panel:
    """A row for each series."""
    made = table.Panel().title(title).description(text).datasource(SOURCE).span(WIDTH).height(9)
    return made.with_target(query(expression, rows=True))


def page(uid: str, title: str, text: str, *panels: Panel, instance: bool = False) -> models.Dashboard:
    """A dashboard with the variables for data source and release, and for the node if `instance`."""
    made = (
        dashboard.Dashboard(title).uid(uid).description(text).tags(["kickwatch"]).refresh("1m").time("now-24h", "now")
    )
    made = made.with_variable(dashboard.DatasourceVariable("datasource").type("prometheus").label("Data source"))
    made = made.with_variable(_choice("release", "label_values(kickwatch_kernel_info, release)"))
    if instance:
        made = made.with_variable(_choice("instance", f"label_values(kickwatch_kernel_info{{{RELEASE}}}, instance)"))
    made = made.link(dashboard.DashboardLink("kickwatch").type(models.DashboardLinkType.DASHBOARDS).tags(["kickwatch"]))
    for number, panel in enumerate(panels, 1):
        made = made.with_panel(panel.id(number))
    return made.build()


def _choice(name: str, asked: str) -> dashboard.QueryVariable:
    made = dashboard.QueryVariable(name).datasource(SOURCE).query(asked).multi(True).include_all(True).all_value(".+")
    return made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)


def fleet() -> models.Dashboard:
    """Which release broadcasts, and how sure that is."""
    broadcasting = with_release('max without (condition) (kickwatch_condition{condition="broadcasting"})')
    most = with_release(f"max without (stream) (kickwatch_e_process{{{PAGE}}})")
    return page(
        "kickwatch-fleet",
        "kickwatch: fleet",
        "Which kernel release broadcasts when containers are created, and how sure that is.",
        figures("Nodes", "By kernel release.", f"release:kickwatch_nodes:count{{{RELEASE}}}", "{{release}}"),
        figures(
            "Watched",
            "Share of the nodes whose condition is known. Silence of the others proves nothing.",
            f"release:kickwatch_known:ratio{{{RELEASE}}}",
            "{{release}}",
            "percentunit",
        ),
        lines(
            "Pooled evidence by release",
            "The mean over nodes and the four streams of the creation path. 1 or less is no evidence; a healthy release"
            " reaches a million with a probability of about one in 100,000. At the red line KickwatchBadRelease fires.",
            (f"release:kickwatch_e_process:mean{{{RELEASE}}}", "{{release}}"),
            log=True,
            limit=1e6,
        ),
        lines(
            "Pooled evidence by release and stream",
            "The mean over nodes, for every stream.",
            (f"release_stream:kickwatch_e_process:mean{{{RELEASE}}}", "{{release}} {{stream}}"),
            log=True,
            limit=1e6,
        ),
        lines(
            "Nodes that broadcast",
            "Nodes with proof of their own, by kernel release.",
            (f"sum by (release) ({broadcasting})", "{{release}}"),
        ),
        lines("Nodes by condition", "All releases.", ("sum by (condition) (kickwatch_condition)", "{{condition}}")),
        lines("Why nodes are unknown", "Nodes by reason.", ("sum by (reason) (kickwatch_unknown)", "{{reason}}")),
        lines(
            "Silent nodes",
            "Targets that do not answer.",
            ('count(up{job="kickwatch"} == 0) or vector(0)', "silent"),
            ('count(up{job="kickwatch"} == 1)', "answering"),
        ),
        rows("Nodes with the most evidence", "E-processes of the creation path's streams.", f"topk(20, {most})"),
        rows("Alerts", "Firing now.", 'ALERTS{alertname=~"Kickwatch.*", alertstate="firing"}'),
    )


def node() -> models.Dashboard:
    """One node, or a few."""

    def of(name: str, more: str = "") -> str:
        return f"{name}{{{NODE}{more}}}"

    buckets = f"rate({of('kickwatch_container_step_seconds_bucket')}[6h])"
    cpu = of("process_cpu_seconds_total", ', job="kickwatch"')
    return page(
        "kickwatch-node",
        "kickwatch: node",
        "What kickwatch knows of a node, and what it does there.",
        figures(
            "Condition", "1 for the condition.", f"max by (condition) ({of('kickwatch_condition')})", "{{condition}}"
        ),
        figures(
            "Age of the verdict",
            "Since the last trial that established something.",
            of("kickwatch_verdict_age_seconds"),
            "{{instance}}",
            "s",
        ),
        lines(
            "Evidence, relative to its threshold",
            "By stream; 1 is an alarm.",
            (f"max by (stream) ({of('kickwatch_evidence')} / {of('kickwatch_evidence_threshold')})", "{{stream}}"),
            log=True,
            limit=1.0,
        ),
        lines(
            "E-processes since the epoch",
            "What the fleet pools.",
            (f"max by (stream) ({of('kickwatch_e_process')})", "{{stream}}"),
            log=True,
        ),
        lines(
            "Requests by reason",
            "Call-function requests a second, of all CPUs, whoever sends them.",
            (f"sum by (reason) (rate({of('kickwatch_csd_requests_total')}[$__rate_interval]))", "{{reason}}"),
            unit="reqps",
        ),
        lines(
            "Interrupts by kind",
            "From /proc/interrupts.",
            (f"sum by (kind) (rate({of('kickwatch_interrupts_total')}[$__rate_interval]))", "{{kind}}"),
            unit="reqps",
        ),
        lines(
            "Time waited for slab_mutex",
            "Seconds a second: 1 is one task that always waits.",
            (f"rate({of('kickwatch_slab_mutex_wait_seconds_sum')}[$__rate_interval])", "{{instance}}"),
        ),
        lines(
            "Trials an hour",
            "By the verdict after them; void trials prove nothing.",
            (f"sum by (verdict) (increase({of('kickwatch_trials_total')}[1h]))", "{{verdict}}"),
        ),
        lines(
            "Time of each step of a container",
            "Median of six hours.",
            (STEP_QUANTILE.format(by="step", buckets=buckets), "{{step}}"),
            unit="s",
        ),
        lines(
            "Pauses by the guard",
            "1 during a pause.",
            (f"max by (reason) ({of('kickwatch_guard_paused')})", "{{reason}}"),
        ),
        lines(
            "Memory of the daemon",
            "Resident.",
            (of("process_resident_memory_bytes", ', job="kickwatch"'), "{{instance}}"),
            unit="bytes",
        ),
        lines(
            "CPU time of the daemon",
            "Seconds a second, without its children.",
            (f"rate({cpu}[$__rate_interval])", "{{instance}}"),
        ),
        instance=True,
    )


def bill() -> models.Dashboard:
    """What a container costs, by release."""
    cells = ("reason", "origin", "path")
    requests = with_release("kickwatch_bill_requests_per_container", *cells)
    broadcasts = with_release("kickwatch_bill_broadcasts_per_container", *cells)
    created = with_release('kickwatch_bill_broadcasts_per_container{path="create"}', *cells)
    buckets = with_release("rate(kickwatch_container_step_seconds_bucket[6h])", "step", "le")
    return page(
        "kickwatch-bill",
        "kickwatch: bill per container",
        "What starting and removing one container asks of the other CPUs: the mean over the nodes of a kernel release.",
        lines(
            "Requests per container",
            "Above the rate without containers, all CPUs together.",
            (f"avg by (release) (sum without ({BY_CELL}) ({requests}))", "{{release}}"),
        ),
        lines(
            "Broadcasts per container",
            "By kernel release, on all paths.",
            (f"avg by (release) (sum without ({BY_CELL}) ({broadcasts}))", "{{release}}"),
        ),
        lines(
            "Broadcasts while creating a container",
            "By the part of the kernel that asks; 0 on a healthy kernel.",
            (f"avg by (release, origin) ({created} or 0 * {broadcasts})", "{{release}} {{origin}}"),
        ),
        lines(
            "Time of each step of a container",
            "Median of six hours, by kernel release.",
            (STEP_QUANTILE.format(by="release, step", buckets=buckets), "{{release}} {{step}}"),
            unit="s",
        ),
        rows("Requests by cell", "The mean over nodes.", f"sort_desc(avg by (release, {BY_CELL}) ({requests}))"),
        rows("Broadcasts by cell", "The mean over nodes.", f"sort_desc(avg by (release, {BY_CELL}) ({broadcasts}))"),
    )


def isolated() -> models.Dashboard:
    """What reaches isolated CPUs."""
    asked = with_release('rate(kickwatch_trial_requests_total{cpus="isolated"}[6h])', "cpus", "window")
    seconds = with_release("rate(kickwatch_trial_window_seconds_total[6h])", "window")
    # Not of nodes that cannot count them: NaN.
    ipis = with_release("(rate(kickwatch_trial_isolated_ipis_total[6h]) >= 0)", "window")
    alerted = with_release('max without (stream) (kickwatch_stream_alerted{stream="isolation"})')
    each = "avg by (release, window)"
    return page(
        "kickwatch-isolated",
        "kickwatch: isolated CPUs",
        "Requests to CPUs that their owner has set apart, in trials: with containers (churn) and without (quiet).",
        figures("Nodes with isolated CPUs", "All releases.", "sum(kickwatch_isolated_cpus > bool 0)", "nodes"),
        figures("Nodes with broken isolation", "By release.", f"sum by (release) ({alerted})", "{{release}}"),
        lines(
            "Requests to isolated CPUs",
            "A second of a window. Without containers is the background: the difference is the containers'.",
            (f"{each} ({asked}) / {each} ({seconds})", "{{release}} {{window}}"),
            unit="reqps",
        ),
        lines(
            "IPIs of every kind to isolated CPUs",
            "A second of a window, over the nodes that can count them (Linux 6.4).",
            (f"{each} ({ipis}) / {each} ({seconds})", "{{release}} {{window}}"),
            unit="reqps",
        ),
        lines(
            "Pooled evidence that containers disturb isolated CPUs",
            "The mean over nodes, by kernel release.",
            (f'release_stream:kickwatch_e_process:mean{{stream="isolation", {RELEASE}}}', "{{release}}"),
            log=True,
            limit=1e6,
        ),
    )


DASHBOARDS = {"fleet": fleet, "node": node, "bill": bill, "isolated": isolated}


def text_of(name: str) -> str:
    """The JSON of a dashboard."""
    return json.dumps(DASHBOARDS[name](), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write all of them."""
    for name in DASHBOARDS:
        (HERE / f"{name}.json").write_text(text_of(name), encoding="utf-8")
        print(f"dashboards: {HERE / name}.json", file=sys.stderr)


if __name__ == "__main__":
    main()
