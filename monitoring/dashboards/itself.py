"""The collector itself: whether its numbers can be trusted, what it costs, and how much it says."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards import parts
from monitoring.dashboards.kubectl_top import COMPARED
from monitoring.dashboards.parts import Column, Query, Row

OF = 'job=~"$job",instance=~"$instance"'

NODE = "{{instance}}"
NO_FILES = "Collectors with another --source than cgroup read no files"
NO_UPSTREAM = (
    "These collectors read cgroups and fill no pod: --source summary and metrics-api have an upstream, and --fill-from"
)
NO_GUARD = "What these collectors serve is not guarded: docs/security.md says how"


def rate(name: str, more: str = "") -> str:
    """The rate of a counter of the collectors."""
    return f"rate({name}{{{OF}{more}}}[$__rate_interval])"


def mean(name: str, by: str) -> str:
    """The mean of a summary's observations."""
    return f"sum by ({by}) ({rate(f'{name}_sum')}) / sum by ({by}) ({rate(f'{name}_count')})"


def itself() -> Dashboard:
    """The dashboard."""
    top = (
        parts.number(
            "Answering",
            "Collectors, of those that Prometheus has found.",
            Query(f"sum(up{{{OF}}})"),
            unit="none",
        ),
        parts.number(
            "Not answering",
            "Collectors that Prometheus has found and that do not answer: nothing is known of the pods on their nodes.",
            Query(f"count(up{{{OF}}}) - sum(up{{{OF}}})"),
            unit="none",
            fail_above=1,
        ),
        parts.number(
            "Oldest tally",
            "The age of what is served. It is a second at most, unless ticks fail or the node has no CPU to give.",
            Query(f"max(podtally_tally_age_seconds{{{OF}}})"),
            unit="s",
            warn_above=5,
            fail_above=30,
        ),
        parts.number(
            "Most CPU",
            "Cores of the collector that uses most: the whole process, ticks, scrapes and all.",
            Query(f"max({rate('process_cpu_seconds_total')})"),
            unit="short",
            decimals=3,
        ),
        parts.number(
            "Most memory",
            "Resident memory of the collector that has most.",
            Query(f"max(process_resident_memory_bytes{{{OF}}})"),
            unit="bytes",
        ),
        parts.number(
            "Samples a round",
            "What one round of scrapes brings to Prometheus.",
            Query(f"sum(scrape_samples_scraped{{{OF}}})"),
            unit="short",
        ),
    )
    cost = (
        parts.graph(
            "CPU",
            "Cores of each collector's process.",
            Query(f"sum by (instance) ({rate('process_cpu_seconds_total')})", NODE),
            unit="short",
            label="cores",
            width=8,
        ),
        parts.graph(
            "CPU of ticks",
            "The part of it that ticks take: reading the node's cgroups and adding them up.",
            Query(f"sum by (instance) ({rate('podtally_tick_cpu_seconds_total')})", NODE),
            unit="short",
            label="cores",
            width=8,
        ),
        parts.graph(
            "Memory",
            "Resident memory of each collector's process. The kernel's own memory for held files comes on top, some 8.5"
            " KiB for each.",
            Query(f"max by (instance) (process_resident_memory_bytes{{{OF}}})", NODE),
            unit="bytes",
            width=8,
        ),
        parts.graph(
            "Duration of a tick",
            "From the first file read to the tally published, on average.",
            Query(mean("podtally_tick_duration_seconds", "instance"), NODE),
            unit="s",
            width=8,
        ),
        parts.graph(
            "Duration of a scrape",
            "How long rendering took on average, by path, in the collector; and the longest scrape as Prometheus saw"
            " it.",
            Query(mean("podtally_scrape_duration_seconds", "path"), "{{path}}"),
            Query(f"max(scrape_duration_seconds{{{OF}}})", "as Prometheus saw it"),
            unit="s",
            width=8,
        ),
        parts.graph(
            "Files read",
            "Kernel files a second, and those that had to be opened for it as no more descriptors may be held.",
            Query(f"sum by (instance) ({rate('podtally_files_read_total')})", NODE),
            Query(f"sum by (instance) ({rate('podtally_opened_reads_total')})", "{{instance}}, opened"),
            unit="short",
            label="a second",
            width=8,
            absent=NO_FILES,
        ),
    )
    age = (
        parts.graph(
            "Age of the tally",
            "How old what is served is when it is scraped.",
            Query(f"max by (instance) (podtally_tally_age_seconds{{{OF}}})", NODE),
            unit="s",
            width=8,
        ),
        parts.graph(
            "Age of the names",
            "How old the answer is that pods and containers are named by. It is asked for again when a cgroup appears"
            " that no answer names.",
            Query(f"max by (instance) (podtally_names_age_seconds{{{OF}}})", NODE),
            unit="s",
            width=8,
            absent="Nobody has answered with pods: docs/development.md, and podtally doctor says why",
        ),
        parts.graph(
            "Where names come from",
            "Collectors by the source of their names: the kubelet, the API server where the kubelet refuses, memory"
            " where"
            " neither answers, none where neither ever did.",
            Query(f"sum by (source) (podtally_names_source{{{OF}}})", "{{source}}"),
            unit="none",
            count=True,
            width=8,
            stacked=True,
            steps=True,
        ),
    )
    bad_ticks = rate("podtally_ticks_total", ',result!="ok"')
    errors = (
        parts.graph(
            "Ticks that failed or were missed",
            "A second. A missed one had no time, as the one before took too long.",
            Query(
                f"sum by (instance, result) ({bad_ticks})",
                "{{instance}} {{result}}",
            ),
            unit="short",
            least=0.1,
            width=8,
        ),
        parts.graph(
            "Files that could not be read",
            "A second, by reason: denied (rights), exhausted (descriptors), failed, malformed. A cgroup that has"
            " just gone"
            " is none.",
            Query(f"sum by (instance, reason) ({rate('podtally_read_errors_total')})", "{{instance}} {{reason}}"),
            unit="short",
            least=0.1,
            width=8,
            absent=NO_FILES,
        ),
        parts.graph(
            "Pods withheld",
            "Pods whose sums are not exported, as a part of them is not known, by reason.",
            Query(f"sum by (instance, reason) (podtally_pods_incomplete{{{OF}}})", "{{instance}} {{reason}}"),
            unit="none",
            count=True,
            width=8,
        ),
        parts.graph(
            "Answers to the question for pods",
            "A second, by source and HTTP status; error where nothing answered.",
            Query(f"sum by (source, code) ({rate('podtally_answers_total')})", "{{source}} {{code}}"),
            unit="short",
            least=0.1,
            width=8,
            absent="Nobody has been asked yet",
        ),
        parts.graph(
            "Cgroups without a name, and doubled names",
            "Cgroups of pods and containers that no answer names, and such as are not exported as a newer one bears"
            " their"
            " name.",
            Query(f"sum by (instance) (podtally_unnamed_cgroups{{{OF}}})", "{{instance}} unnamed"),
            Query(f"sum by (instance, kind) (podtally_duplicates{{{OF}}})", "{{instance}} doubled {{kind}}"),
            unit="none",
            count=True,
            width=8,
        ),
        parts.graph(
            "Items refused",
            "Items a second in lists of pods, or in an upstream's answers, that were not what they should be.",
            Query(f"sum by (instance) ({rate('podtally_refused_items_total')})", NODE),
            unit="short",
            least=0.1,
            width=8,
        ),
    )
    size = (
        parts.graph(
            "Samples of a scrape",
            "Series that each collector exports.",
            Query(f"sum by (instance) (scrape_samples_scraped{{{OF}}})", NODE),
            unit="short",
            width=8,
        ),
        parts.graph(
            "New series",
            "Series that a scrape brought which the one before had not: pods that come and go.",
            Query(f"sum by (instance) (scrape_series_added{{{OF}}})", NODE),
            unit="short",
            width=8,
        ),
        parts.graph(
            "Pods and cgroups",
            "Pods exported, and cgroups read in a tick.",
            Query(f"sum by (instance) (podtally_pods{{{OF}}})", "{{instance}} pods"),
            Query(f"sum by (instance) (podtally_cgroups{{{OF}}})", "{{instance}} cgroups"),
            unit="none",
            count=True,
            width=8,
        ),
        parts.graph(
            "Descriptors",
            "Descriptors of kernel files held open, and how many may be.",
            Query(f"max by (instance) (podtally_descriptors_held{{{OF}}})", "{{instance}} held"),
            Query(f"max by (instance) (podtally_descriptors_limit{{{OF}}})", "{{instance}} limit"),
            unit="none",
            count=True,
            width=8,
            absent=NO_FILES,
        ),
        parts.graph(
            "Expositions served",
            "A second, by path.",
            Query(f"sum by (path) ({rate('podtally_scrapes_total')})", "{{path}}"),
            unit="short",
            width=8,
        ),
        parts.rows(
            "Versions and sources",
            "What runs on each node, and where its numbers come from.",
            {"instance": "Node", "version": "Version", "source": "Source"},
            Column(
                "",
                f"max by (instance, version, source) (podtally_build_info{{{OF}}}"
                f" * on (job, instance) group_left (source) podtally_source_info{{{OF}}})",
            ),
            width=8,
        ),
    )
    agreement = (
        parts.graph(
            "Difference from the kubelet",
            "Of what its /metrics/resource says over the same window: the worst of each node's containers above 10m or"
            " 10Mi.",
            Query(
                f'max by (instance, quantity) (podtally_kubelet_difference_ratio{{{OF},statistic="worst"}})',
                "{{instance}} {{quantity}}",
            ),
            unit="percentunit",
            width=8,
            absent=COMPARED,
        ),
        parts.graph(
            "Containers outside",
            "Containers that differ by over 10%, over 1m or 1Mi, and over what the readings around the sample allow.",
            Query(
                f"max by (instance, quantity) (podtally_kubelet_outside_containers{{{OF}}})",
                "{{instance}} {{quantity}}",
            ),
            unit="none",
            count=True,
            width=8,
            absent=COMPARED,
        ),
        parts.graph(
            "Comparisons",
            "A second, by what came of them; and the age of the last one.",
            Query(f"sum by (result) ({rate('podtally_kubelet_comparisons_total')})", "{{result}}"),
            Query(f"max(podtally_kubelet_comparison_age_seconds{{{OF}}})", "age of the last"),
            unit="short",
            width=8,
            looks=[parts.on_the_right("age of the last", "text", "s", "age")],
            absent=COMPARED,
        ),
    )
    upstream = (
        parts.graph(
            "Upstream",
            "Whether it answered well when it was asked last.",
            Query(f"min by (instance) (podtally_upstream_up{{{OF}}})", NODE),
            unit="none",
            count=True,
            most=1,
            width=8,
            steps=True,
            absent=NO_UPSTREAM,
        ),
        parts.graph(
            "Age of what it said",
            "The time since it was asked what is served, and the age of its samples by its own times.",
            Query(f"max by (instance) (podtally_upstream_age_seconds{{{OF}}})", "{{instance}} asked"),
            Query(
                f"max by (instance, of) (podtally_upstream_sample_age_seconds{{{OF}}})", "{{instance}} {{of}} sample"
            ),
            Query(f"max by (instance, of) (podtally_upstream_window_seconds{{{OF}}})", "{{instance}} {{of}} window"),
            unit="s",
            width=8,
            absent=NO_UPSTREAM,
        ),
        parts.graph(
            "Answers of the upstream",
            "A second, by HTTP status; error where nothing answered, malformed where it was no answer to the question.",
            Query(f"sum by (code) ({rate('podtally_upstream_requests_total')})", "{{code}}"),
            unit="short",
            width=8,
            absent=NO_UPSTREAM,
        ),
    )
    guard = (
        parts.graph(
            "Web configuration in force",
            "1 if the file of --web.config.file is in force as it is on disk, 0 if an earlier one is.",
            Query(f"min by (instance) (podtally_web_config_reload_successful{{{OF}}})", NODE),
            unit="none",
            count=True,
            most=1,
            width=8,
            steps=True,
            absent=NO_GUARD,
        ),
        parts.graph(
            "Requests not let in",
            "A second, by reason.",
            Query(f"sum by (reason) ({rate('podtally_refused_requests_total')})", "{{reason}}"),
            unit="short",
            least=0.1,
            width=8,
            absent=NO_GUARD,
        ),
        parts.graph(
            "Reviews asked for",
            "TokenReviews and SubjectAccessReviews a second, by HTTP status.",
            Query(f"sum by (kind, code) ({rate('podtally_reviews_total')})", "{{kind}} {{code}}"),
            unit="short",
            least=0.1,
            width=8,
            absent=NO_GUARD,
        ),
    )
    return parts.board(
        "podtally-itself",
        "The collector itself",
        "What podtally costs on each node, how old its numbers are, what goes wrong, and how many series it exports.",
        [parts.JOB, parts.NODE],
        [
            Row("", top),
            Row("Cost", cost),
            Row("Age", age),
            Row("Errors", errors),
            Row("Series", size),
            Row("Agreement with the kubelet (--verify-interval)", agreement, collapsed=True),
            Row("Upstream (--source summary or metrics-api, --fill-from)", upstream, collapsed=True),
            Row("TLS and access (--web.config.file, --authenticate)", guard, collapsed=True),
        ],
    )
