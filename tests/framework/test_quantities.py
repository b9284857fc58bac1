"""What a number of the record is, is said once, and whoever reads a run learns it from the run's folder."""

import io
import sys

import numpy as np
import pytest
from rich.console import Console
from runs import TINY, compose, run_in
from summary_runs import DECLARED
from sweep_runs import write_sweep_json

from taskshift.faults import Fault
from taskshift.pictures import summary
from taskshift.pictures.summary import draw_summary
from taskshift.quantities import Column, Quantities, Quantity
from taskshift.run_folder import RunFolder, read_quantities, read_rows
from taskshift.summary import print_table, summary_table
from taskshift.sweeps import plot
from taskshift.sweeps.collect import collect
from taskshift.sweeps.plot import Wanted, plot_sweep

# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "placed"),
    [
        ("spectrum/top_12", {"layer": "spectrum", "k": "12"}),
        ("conv.0/top_1", {"layer": "conv.0", "k": "1"}),
        ("a/b/top_1", None),
        ("spectrum/top_0", None),
        ("spectrum/top_1_more", None),
    ],
)
def test_placeholders_stand_for_layers_and_numbers(name, placed):
    assert Quantity("<layer>/top_<k>", "").placed(name) == placed


def test_text_of_a_pattern_is_taken_literally():
    assert Quantity("a.b+c", "").placed("a.b+c") == {}
    assert Quantity("a.b+c", "").placed("aXbbc") is None


def test_the_most_exact_of_several_patterns_says_what_a_name_is():
    patterns = ["p/<quantity>", "p/first_<metric>", "p/first_test_<metric>", "p/first_test_loss", "p/<layer>/<measure>"]
    said = Quantities(Quantity(pattern, "") for pattern in patterns)
    names = ["p/other", "p/first_loss", "p/first_test_accuracy", "p/first_test_loss", "start/p/hidden.0/rank", "q/other"]
    found = [said.of(name) for name in names]
    assert [one and one.pattern for one in found] == [*patterns, None]


def test_below_puts_a_name_before_every_name():
    column = Column("λ", "top_1", "top")
    quantity = Quantity("top_<k>", "", error="residual_<k>", columns=(column,)).below("spectrum")
    assert quantity.error_of("spectrum/top_3") == "spectrum/residual_3"
    assert quantity.columns == (Column("λ", "spectrum/top_1", "top"),)


@pytest.mark.parametrize("column", [Column("top"), Column("top", "bottom_1"), Column("top", "top_<k>")])
def test_a_column_of_no_single_name_is_refused(column):
    with pytest.raises(ValueError, match=r"a column of top_<k> shows .*, which is not one of its names; say which one by name="):
        Quantity("top_<k>", "", columns=(column,))


def test_an_error_with_a_placeholder_of_its_own_is_refused():
    with pytest.raises(ValueError, match="the error residual_<k> has <k>, which top does not have"):
        Quantity("top", "", error="residual_<k>")


# -- units --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "of_classes", "unit"),
    [
        ("epoch_loss", True, "nats"),
        ("epoch_loss", False, ""),
        ("plasticity/gap_test_accuracy", False, "share"),
        ("start/plasticity/test_loss", True, "nats"),
        ("spectrum/trace_standard_error", True, "loss / θ²"),
        ("start/spectrum/negative_mass_standard_error", True, "share"),
        ("spectrum/layers.0/trace", True, "loss / θ²"),
        ("rank/layers.0/approximate_rank", True, "dimensions"),
        ("rank/layers.0/singular_value_gini", True, "0 … 1"),
        ("units/seconds", True, "s"),
        ("plasticity/test_accuracy_standard_error", True, "share"),
        ("plasticity/test_loss_standard_error", False, ""),
        ("plasticity/gap_test_loss_standard_error", True, "nats"),
        ("task_idx", True, ""),
        ("own/never_declared", True, ""),
    ],
)
def test_units_of_names(name, of_classes, unit):
    assert DECLARED.unit(name, of_classes=of_classes) == unit


# -- in a folder --------------------------------------------------------------------------------------------------


def test_quantities_come_back_as_they_were_written(tmp_path):
    RunFolder(tmp_path, "mlp").write_quantities(DECLARED)
    assert list(read_quantities(tmp_path)) == list(DECLARED)


def test_what_later_code_says_of_a_quantity_is_passed_over():
    content = [{"pattern": "a", "meaning": "m", "colour": "red", "columns": [{"title": "t", "colour": "red"}]}]
    assert list(Quantities.from_json(content)) == [Quantity("a", "m", columns=(Column("t"),))]


def test_a_damaged_file_is_named_with_what_can_be_done(tmp_path):
    RunFolder(tmp_path, "mlp").write_quantities(DECLARED)
    path = tmp_path / "quantities.json"
    path.write_text(path.read_text().replace("dimensions", "apples", 1))
    with pytest.raises(Fault, match=r"quantities.json is damaged \(its checksum is another\); delete it; the run's own command"):
        read_quantities(tmp_path)


def test_a_folder_that_says_nothing_has_what_every_run_logs(tmp_path):
    assert read_quantities(tmp_path).unit("epoch_accuracy", of_classes=True) == "share"


# -- one file and one yaml ----------------------------------------------------------------------------------------

PLUGIN = '''
from taskshift.evaluators.evaluator import Evaluator, Findings
from taskshift.quantities import Column, Quantity


class Spread(Evaluator):
    """How far apart the weights are."""

    quantities = (
        Quantity(
            "spread",
            "largest |w| − smallest |w|",
            "θ",
            "none",
            panel="spread of the weights",
            error="spread_error",
            columns=(Column("spread\\n± error", with_error="{} ± {}"),),
        ),
        Quantity("spread_error", "a made-up error", "θ"),
        Quantity("<layer>/spread", "the same for one layer", "θ", panel="spread, by layer"),
        Quantity("heavy", "share of large weights", "share", panel="large weights", columns=(Column("large", key="large"),)),
        Quantity("light", "share of small weights", "share", panel="large weights", label="small ones"),
    )

    def __call__(self, measurement):
        sizes = {name: p.detach().abs() for name, p in measurement.training.net.named_parameters()}
        by_layer = {f"{name}/spread": (size.max() - size.min()).item() for name, size in sizes.items()}
        return Findings({"spread": 1.5, "spread_error": 0.25, "heavy": 0.125, "light": 0.5, **by_layer})
'''
OFF = ("planes", "spectrum", "rank", "units", "weights", "coupling", "sam")


@pytest.fixture(scope="module")
def spread(tmp_path_factory):
    """The sweep of one run that a plugin's evaluator measured; the plugin is gone."""
    root = tmp_path_factory.mktemp("spread")
    (root / "spread_plugin.py").write_text(PLUGIN)
    words = ["plugins=[spread_plugin]", "lla=[default,own]", "lla.own._target_=spread_plugin.Spread", "learner.gradient_clip=0.5"]
    words += [f"lla.enable_{name}=false" for name in OFF]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "path", list(sys.path))
        folder = run_in(root, {**compose(*TINY, *words, "run_name=0000000a"), "sweep_name": "s"})
    del sys.modules["spread_plugin"]
    (root / "spread_plugin.py").unlink()
    entry = {"overrides": {"seed": "0"}, "label": "seed=0", "job": None, "cluster": None, "submitted": None, "waiting": False}
    write_sweep_json(folder.parent, ["seed"], {"0000000a": entry})
    return folder


def test_a_plugins_number_is_in_the_record_and_in_the_table_of_a_sweep(spread, tmp_path):
    assert [row["own/spread"] for row in read_rows(spread) if "task/seconds" in row] == [1.5, 1.5]
    console = Console(file=io.StringIO(), width=200)
    collect([spread.parent], None, "SELECT value FROM metrics WHERE metric = 'own/heavy'", False, console)
    assert console.file.getvalue().count("0.125") == 2


def test_a_plugins_number_has_a_panel_of_its_own(spread, monkeypatch):
    drawn = {}
    monkeypatch.setattr(summary, "save_figure", lambda path, figure: drawn.setdefault(path.name, figure))
    draw_summary(spread)
    panels = {axes.get_title(): axes for axes in drawn["own.png"].axes}
    assert list(panels) == ["spread of the weights", "spread, by layer", "large weights"]
    handles, labels = panels["spread of the weights"].get_legend_handles_labels()
    assert labels == ["at a task's end"]
    np.testing.assert_array_equal(handles[0][0].get_ydata(), [1.5, 1.5])
    heights = [top[1] - bottom[1] for bottom, top in handles[0][2][0].get_segments()]
    assert heights == pytest.approx([0.5, 0.5])
    _, layers = panels["spread, by layer"].get_legend_handles_labels()
    logged = dict.fromkeys(name for row in read_rows(spread) for name in row if name.endswith("/spread"))
    assert layers == [name.split("/")[1] for name in logged if name != "own/spread"]
    assert len(layers) > 2
    handles, labels = panels["large weights"].get_legend_handles_labels()
    assert dict(zip(labels, [list(handle[0].get_ydata()) for handle in handles], strict=True)) == {
        "heavy": [0.125, 0.125],
        "small ones": [0.5, 0.5],
    }
    weights = [axes.get_title() for name, figure in drawn.items() if name != "own.png" for axes in figure.axes]
    assert not any("spread" in title for title in weights)


def test_what_a_part_of_the_learner_tells_is_drawn_over_epochs(spread, monkeypatch):
    drawn = {}
    monkeypatch.setattr(summary, "save_figure", lambda path, figure: drawn.setdefault(path.name, figure))
    draw_summary(spread)
    [axes] = drawn["learner.png"].axes
    assert axes.get_title() == "steps of an epoch whose gradient was clipped"
    assert axes.get_xlabel() == "epoch (tasks 0–1)"
    logged = [row["learner/gradient_clip/clipped"] for row in read_rows(spread) if "epoch_loss" in row]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), logged)


@pytest.mark.parametrize(("metric", "unit"), [("own/spread", "θ"), ("own/heavy", "share"), ("own/spread_error", "θ")])
def test_a_plugins_number_has_its_unit_in_a_sweeps_figure(spread, monkeypatch, metric, unit):
    figures = []
    monkeypatch.setattr(plot, "save_figure", lambda path, figure: figures.append(figure))
    plot_sweep(spread.parent, Wanted(metric, "task_idx"), None, force=False)
    assert figures[0].axes[0].get_ylabel() == f"{metric} [{unit}]"


def test_a_plugins_number_stands_in_the_closing_table(spread):
    table = summary_table(read_rows(spread), read_quantities(spread))
    assert [(row["own/spread"], row["large"]) for row in table] == [(1.5, 0.125)] * 2
    console = Console(file=io.StringIO(), width=120)
    print_table(spread, console)
    lines = console.file.getvalue().splitlines()
    assert "spread" in lines[1]
    assert "± error" in lines[2]
    assert "1.5 ± 0.25" in lines[3]
    assert "12.5%" in lines[3]
