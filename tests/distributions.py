"""Installed distributions for tests: a real ``.dist-info`` folder with entry points, beside the module they name."""

from pathlib import Path

__all__ = ["install_distribution"]


def install_distribution(site: Path, name: str, module: str, points: dict[str, dict[str, str]]) -> None:
    """Put a distribution into the folder *site*, as an installer would.

    Args:
        site: On ``sys.path``.
        name: Of the distribution and of its one module.
        module: The module's text.
        points: Group of entry points -> name -> reference.
    """
    site.mkdir(parents=True, exist_ok=True)
    (site / f"{name}.py").write_text(module)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{point} = {reference}" for point, reference in names.items())])
        for group, names in points.items()
    ]
    (info / "entry_points.txt").write_text("\n\n".join(groups) + "\n")
    (info / "RECORD").write_text(f"{name}.py,,\n")
