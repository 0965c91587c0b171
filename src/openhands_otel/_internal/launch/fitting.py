"""Whether what a bundle gives to an environment goes together with what the environment has."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import Distribution, distributions


class Unfit(Exception):
    """A package of the environment is another version than one is needed; said in one line."""


def check(folders: Sequence[str]) -> None:
    """Look at what the distributions in ``folders`` require of those elsewhere; raises Unfit.

    What is missing altogether says so itself, when it is imported.
    """
    if not folders:
        return
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    here: dict[str, Distribution] = {}
    for found in distributions():
        here.setdefault(canonicalize_name(found.name), found)
    for given in distributions(path=list(folders)):
        for requirement in map(Requirement, given.requires or ()):
            found = here.get(canonicalize_name(requirement.name))
            if found is None or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                continue
            # OpenTelemetry's packages pin each other to the very patch, which is for whoever installs them.
            for bound in requirement.specifier:
                if bound.operator != "==" and not bound.contains(found.version, prereleases=True):
                    raise Unfit(
                        f"{found.name} {found.version} is there, and {given.name} {given.version} needs {bound}"
                    )
