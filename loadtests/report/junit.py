"""JUnit documents, and the report of runs as one: validity and every threshold as a test case.

Source: the format that Jenkins, GitLab and GitHub's test reporters share; there is no standard of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from msgspec import Struct

from loadtests.results.schema import Result


class Case(Struct, frozen=True, kw_only=True):
    """One check. `failure`: what went wrong; `error`: why nothing can be said; `skipped`: why it is open; else it passed."""

    name: str
    text: str = ""
    failure: str = ""
    error: str = ""
    skipped: str = ""


def render(results: Sequence[Result]) -> str:
    """Return a test suite for each run. ValueError without any."""
    if not results:
        raise ValueError("a report needs at least one run")
    suites: dict[str, tuple[int, Sequence[Case]]] = {}
    for result in results:
        name = f"{result.scenario} against {result.target.name}"
        taken = sum(known.startswith(name) for known in suites)
        suites[f"{name} ({taken + 1})" if taken else name] = (result.duration_ns, cases(result))
    return document(suites)


def cases(result: Result) -> list[Case]:
    """Return the checks of a run. In an invalid one a threshold that failed, or held, proves nothing: an error."""
    invalid = "; ".join(f"{finding.code}: {finding.sentence}" for finding in result.findings)
    why = "the run is invalid" if invalid else "the run was interrupted" if result.interrupted else ""
    found = [Case(name="the run is valid", failure=invalid)]
    if result.interrupted:
        found.append(Case(name="the run is complete", failure="It was interrupted."))
    for outcome in result.thresholds:
        if why:
            found.append(Case(name=outcome.threshold, error=f"Not decided, {why}: {outcome.text}"))
        else:
            found.append(Case(name=outcome.threshold, text=outcome.text, failure="" if outcome.ok else outcome.text))
    return found


def document(suites: dict[str, tuple[int, Sequence[Case]]]) -> str:
    """Return the XML of suites by name, each with the time that it took in ns and its cases."""
    root = Element("testsuites", name="relaymark")
    for name, (duration_ns, its_cases) in suites.items():
        suite = SubElement(
            root,
            "testsuite",
            name=_legal(name),
            tests=str(len(its_cases)),
            failures=str(sum(bool(case.failure) for case in its_cases)),
            errors=str(sum(bool(case.error) for case in its_cases)),
            skipped=str(sum(bool(case.skipped) for case in its_cases)),
            time=f"{duration_ns / 1e9:.3f}",
        )
        for case in its_cases:
            element = SubElement(suite, "testcase", classname=_legal(name), name=_legal(case.name))
            if case.failure:
                SubElement(element, "failure", message=_legal(case.failure)).text = _legal(case.failure)
            elif case.error:
                SubElement(element, "error", message=_legal(case.error)).text = _legal(case.error)
            elif case.skipped:
                SubElement(element, "skipped", message=_legal(case.skipped))
            elif case.text:
                SubElement(element, "system-out").text = _legal(case.text)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _legal(text: str) -> str:
    """Replace what XML 1.0 cannot hold at all, escaped or not: most control characters, and lone surrogates."""
    return "".join(
        character
        if character in "\t\n"
        or " " <= character < "\ud800"
        or "\ue000" <= character <= "\ufffd"
        or character > "\uffff"
        else "\ufffd"
        for character in text
    )
