"""The demo's HTML report: one file, no scripts, nothing fetched from anywhere."""

from pathlib import Path

from hedgerow import __version__
from hedgerow.durable import write_durably
from hedgerow.fleet.demo.plots import plot_drift, plot_rollouts, plot_rounds
from hedgerow.fleet.demo.result import DemoResult
from hedgerow.fleet.demo.story import Story

__all__ = ["write_report"]


def write_report(path: Path, result: DemoResult, story: Story, *, threshold_js_bits: float) -> None:
    """Write the report of a demo.

    Args:
        path: The HTML file.
        result: The figures.
        story: What happened, for the plots.
        threshold_js_bits: The drift plan's smallest effect, drawn as a line.

    Raises:
        OSError: The file cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hedgerow.fleet.demo", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("demo.html").render(
        result=result,
        version=__version__,
        rounds=plot_rounds(story.rounds),
        drift=plot_drift(story.windows, story.moments, threshold_js_bits),
        rollouts=plot_rollouts(story.running, story.moments, result.seconds),
    )
    write_durably(path, page.encode())
