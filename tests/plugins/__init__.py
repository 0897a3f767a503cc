"""Distributions for tests: a folder on the path that pip might have installed."""

from collections.abc import Mapping
from pathlib import Path


def install(folder: Path, name: str, groups: Mapping[str, Mapping[str, str]], source: str) -> Path:
    """Write a distribution of one module with its entry points; put the folder on the path."""
    info = folder / f"{name}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    sections = (
        f"[{group}]\n" + "".join(f"{entry} = {value}\n" for entry, value in entries.items())
        for group, entries in groups.items()
    )
    (info / "entry_points.txt").write_text("\n".join(sections))
    (folder / f"{name}.py").write_text(source)
    return folder


def install_hostile(folder: Path) -> Path:
    """Install the hostile checker as the task `hostile`."""
    source = Path(__file__).with_name("hostile.py").read_text(encoding="utf-8")
    return install(folder, "hostile", {"stepback.tasks": {"hostile": "hostile:Hostile"}}, source)
