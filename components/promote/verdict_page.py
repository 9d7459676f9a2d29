"""The verdict as a page: verdict.md."""

from rankline.evaluation.decision import Verdict
from rankline.evaluation.report import Report


def verdict_page(decided: Verdict, report: Report, *, warning: str = "") -> str:
    """The verdict as Markdown: the outcome, every check, the systems side by side; ``warning`` is of the champion."""
    primary = decided.policy.primary
    lines = [
        f"# {decided.outcome.replace('_', ' ').capitalize()}",
        "",
        decided.sentence,
        "",
        f"Model `{decided.model_id}`, recipe {report.recipe}, run {report.run_id or '(none)'}, "
        f"{report.requests} requests; champion {f'`{decided.champion}`' if decided.champion else '(none)'}.",
        "",
    ]
    if decided.outcome == "pending":
        lines += [
            f"It waits for a reviewer: `rankline review show {decided.model_id}` prints the command that approves it, "
            "`rankline review approve MODEL --evidence DIGEST`, with the digest of this evidence.",
            "",
        ]
    if warning:
        lines += [f"**The champion was {warning}.**", ""]
    if decided.checks:
        lines += ["| | check | observed | required | |", "| --- | --- | --- | --- | --- |"]
        for check in decided.checks:
            sign = "met" if check.passed else "**not met**" if check.status == "fail" else f"**{check.status}**"
            observed = f"{check.observed:.4g}" if isinstance(check.observed, float) else check.observed
            observed = "(not measured)" if observed is None else observed
            lines.append(f"| {sign} | {check.name} | {observed} | {check.required} | {check.sentence} |")
        lines.append("")
    lines += [f"| system | {primary} | interval |", "| --- | --- | --- |"]
    for name, system in report.systems.items():
        estimate = system.metrics.get(primary)
        numbers = [estimate.mean, estimate.low, estimate.high] if estimate else [None] * 3
        mean, low, high = ("-" if n is None else f"{n:.4f}" for n in numbers)
        lines.append(f"| {name} | {mean} | {low} to {high} |")
    return "\n".join(lines) + "\n"
