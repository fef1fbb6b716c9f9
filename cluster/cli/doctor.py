"""`rayscope doctor`: what this machine offers and lacks, each lack with its remedy. It reads, and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from cluster.cli.checks import kernel, resources, services
from cluster.cli.checks.finding import Check, Finding, Machine, unknown
from cluster.cli.options import SettingsLoader, json_option
from cluster.cli.output import print_json, printable

CHECKS = (
    Check("python", True, resources.python),
    Check("ray", True, resources.ray),
    Check("kernel", False, kernel.release),
    Check("socket dumps", False, kernel.socket_dumps),
    Check("destroy events", False, kernel.destroy_events),
    Check("privileges", False, kernel.capabilities),
    Check("network namespaces", False, kernel.namespaces),
    Check("processes", False, kernel.visible_processes),
    Check("conntrack", False, kernel.conntrack),
    Check("cgroups", False, kernel.cgroups),
    Check("tracer", False, services.tracer),
    Check("docker", False, services.docker),
    Check("state directory", True, resources.state_directory),
    Check("store", True, services.store),
    Check("memory", False, resources.memory),
    Check("shared memory", False, resources.shared_memory),
    Check("open files", False, resources.open_files),
    Check("ports", False, resources.ports),
    Check("clock", False, resources.clock),
)
COLORS = {"ok": "green", "lack": "yellow", "unknown": "blue"}


def look(check: Check, machine: Machine) -> Finding:
    """One check's finding; a check that fails costs only itself."""
    try:
        return check.look(machine)
    except Exception as error:
        return unknown(f"cannot be looked at: {type(error).__name__}: {error}")


def blockers(findings: Sequence[tuple[Check, Finding]]) -> list[str]:
    """What is missing that rayscope cannot run without: needed things, and any source of connections at all."""
    lacking = {check.name: check.needed for check, finding in findings if finding.state == "lack"}
    missing = [name for name, needed in lacking.items() if needed]
    return missing + (["tracer or socket dumps"] if {"tracer", "socket dumps"} <= set(lacking) else [])


def _print(findings: Sequence[tuple[Check, Finding]], missing: Sequence[str]) -> None:
    width = max(len(check.name) for check, _ in findings)
    for check, finding in findings:
        state = click.style(f"{finding.state:7}", fg=COLORS[finding.state])
        click.echo(f"{state}  {check.name:{width}}  {printable(finding.detail)}")
        if finding.remedy:
            click.echo(f"{'':7}  {'':{width}}  -> {printable(finding.remedy)}")
    lacks = sum(finding.state == "lack" for _, finding in findings)
    click.echo(
        f"\nrayscope cannot run here: {', '.join(missing)}" if missing else f"\nrayscope can run here; {lacks} of {len(findings)} lacking"
    )


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say what this machine offers and lacks, each lack with its remedy.

    Exit code 0 when rayscope can run here, 1 when something is missing that it cannot do without. Nothing is changed.
    """
    load: SettingsLoader = ctx.obj
    settings = load().settings
    machine = Machine(settings, os.environ, proc=Path(settings.collector.proc))
    findings = [(check, look(check, machine)) for check in CHECKS]
    missing = blockers(findings)
    if as_json:
        checks = [{"check": check.name, "needed": check.needed, **asdict(finding)} for check, finding in findings]
        print_json({"can_run": not missing, "missing": missing, "checks": checks})
    else:
        _print(findings, missing)
    ctx.exit(1 if missing else 0)
