"""What a person chose: a command's parameters, made into settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

import typer

from ._console import Problem, warn
from ._login import ask_secret
from ._settings import Settings, read_config, resolve


def _chosen(context: typer.Context) -> dict[str, Any]:
    """Return the settings among a command's parameters; warn where a secret stands on the command line."""
    given = context.params
    for option in ("client_secret", "store"):
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE" and _is_secret(option, given):
            warn(
                f"--{option.replace('_', '-')} is seen by all who list this machine's processes, and stays in the "
                f"shell's history. Use HTTPX_REFRESH_{option.upper()}, or the configuration file."
            )
    names = {one.name for one in fields(Settings)} - {"name"}
    return {name: given[name] for name in names if given.get(name) is not None}


def settings_of(context: typer.Context) -> Settings:
    """Put the settings of one slot together."""
    given, chosen = context.params, _chosen(context)
    tables = read_config(given["config"])
    settings = resolve(given["name"], chosen, tables)
    if given.get("ask_secret"):
        chosen["client_secret"] = ask_secret(settings)
        settings = resolve(given["name"], chosen, tables)
    return settings


def all_settings_of(context: typer.Context) -> list[Settings]:
    """Put the settings of many slots together."""
    names, chosen = context.params["names"] or [], _chosen(context)
    tables = read_config(context.params["config"])
    if not names and "store" not in chosen:
        names = list(tables)
        if not names:
            raise Problem("there is nothing to keep alive: the configuration file names no slot")
    if len(names) > 1 and chosen:
        raise Problem(
            f"{', '.join(sorted(chosen))}: given for one slot, by an option or a variable, and there are "
            f"{len(names)}. Write them into the configuration file"
        )
    return [resolve(name, chosen, tables) for name in names or [None]]


def _is_secret(option: str, given: Mapping[str, Any]) -> bool:
    """Whether an option's value is a secret: of a store's URL its password is."""
    value = given[option]
    return option == "client_secret" or urlsplit(value).password is not None
