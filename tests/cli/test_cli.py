"""The command line: in this process where that shows the same, else in one of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from tacit.aggregators import AGGREGATORS
from tacit.attacks import ATTACKS
from tacit.checkpoint import read_folder
from tacit.cli import main
from tacit.errors import UserError
from tacit.runs import read_run


@dataclass
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Here:
    """Runs commands in this process, in an empty folder."""

    def __init__(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: Path
    ) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch
        monkeypatch.chdir(path)

    def __call__(self, *arguments: str) -> Done:
        self.monkeypatch.setattr(sys, "argv", ["tacit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self.capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)


@pytest.fixture
def here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Here:
    # click and rich bind to sys.stdout when they print; the console's width is fixed at import
    return Here(capsys, monkeypatch, tmp_path)


def tacit(
    *arguments: str, cwd: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tacit", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_run_and_report(tmp_path: Path) -> None:
    done = tacit("run", "fda:theta=0.1", "-k", "3", "--steps", "40", "--out", "r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "step 40/40" in done.stdout
    assert "fda:theta=0.1" in done.stdout
    assert done.stdout.rstrip().endswith("report: r/report.html")
    assert {p.name for p in (tmp_path / "r").iterdir()} == {
        "config.json", "metrics.jsonl", "summary.json", "report.html",
    }  # fmt: skip
    again = tacit("report", "r", "--out", "again.html", "--target", "0.2", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again.html").stat().st_size > 100_000


def test_compare(here: Here, tmp_path: Path) -> None:
    recipes = ("synchronous", "fda:theta=0.1", "fda:theta=0.5")
    options = ("--steps", "30", "--target", "0.3", "--out", "c")
    done = here("compare", *recipes, *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c" / "report.html").exists()
    assert len(read_run(tmp_path / "c" / "fda-theta-0.5").rows) > 0
    twice = here("compare", "fedavg", "fedavg", "--out", "d")
    assert twice.returncode == 2
    assert "given twice" in twice.stderr


def test_one_that_diverges_does_not_stop_the_others(here: Here, tmp_path: Path) -> None:
    recipes = ("synchronous", "synchronous:aggregator=median")
    options = ("--steps", "20", "--liars", "1", "--attack", "nan", "--out", "n")
    done = here("compare", *recipes, *options)
    assert done.returncode == 1
    assert "error: synchronous: " in done.stderr
    assert "worker 3 sent NaN" in done.stderr
    assert (tmp_path / "n" / "report.html").exists()
    assert read_run(tmp_path / "n" / "synchronous-aggregator-median").summary["finished"]
    assert not read_run(tmp_path / "n" / "synchronous").summary["finished"]


def test_compare_on_a_stream(here: Here, tmp_path: Path) -> None:
    recipes = ("periodic:period=5", "dynamic_averaging:delta=0.1,every=5", "no_sync")
    options = ("--task", "graphical:at=10", "--steps", "20", "-k", "3", "--out", "c")
    done = here("compare", *recipes, *options)
    assert done.returncode == 0, done.stderr
    assert "what each lost and sent in 20 steps:" in done.stdout
    assert "needed to reach" not in done.stdout
    for words in ("cumulative", "partial", "monitoring", *recipes):
        assert words in done.stdout.split("what each")[1]
    assert "What the coordinator arranged" in (tmp_path / "c" / "report.html").read_text()


def test_list(here: Here, tmp_path: Path) -> None:
    done = here("list")
    assert done.returncode == 0
    for word in ("fda", "fedadam", "diloco", "digits", "mnist", "cifar10", "lenet5"):
        assert word in done.stdout


def test_list_has_the_compressors_in_plain_text(here: Here) -> None:
    shown = here("list").stdout
    names = shown.split("compressors")[1]
    for words in ("topk", "density=None, k=None, values=fp32", "randomk", "lowrank", "uniform"):
        assert words in names
    assert "`" not in shown
    assert not re.search(r":[a-z]+:", shown)
    assert "The rest as in ef21." in shown
    assert "tacit.codecs.sampled_top_k" in shown


def test_list_has_the_aggregators_and_attacks(here: Here) -> None:
    aggregators, attacks = here("list").stdout.split("\naggregators")[1].split("\nattacks")
    for name in AGGREGATORS:
        assert f"\n {name} " in aggregators
    for name in ATTACKS:
        assert f"\n {name} " in attacks
    assert "z=None, search=False" in attacks


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("As in :func:`ef21`, or :class:`Link`.", "As in ef21, or Link."),
        (":func:`~tacit.fleet.layout` and ``k``: [1.0].", "layout and k: [1.0]."),
        ("One line,\n    and another.\n\n    The rest.", "One line, and another."),
    ],
)
def test_docstrings_are_shown_as_plain_text(text: str, plain: str) -> None:
    from tacit.cli.commands import _first_paragraph

    def documented() -> None: ...

    documented.__doc__ = text
    assert _first_paragraph(documented) == plain


LONG = ("run", "compressed:compressor=topk(density=0.9)", "--steps", "2", "--out", "r")


def test_a_warning_of_ours_is_one_line(here: Here) -> None:
    done = here(*LONG)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("tacit: warning: compressed messages of 4 workers are longer")
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_warnings_of_others_stay_as_they_are(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    from tacit.cli import commands

    def execute(*_: object) -> None:
        warnings.warn("from a test,\nin two lines", stacklevel=1)
        raise UserError("the end")

    monkeypatch.setattr(commands, "_execute", execute)
    with pytest.warns(UserWarning, match="from a test,\nin two lines"):
        done = here(*LONG)
    assert done.stderr == "tacit: error: the end\n"
    shown = warnings.showwarning
    here("list")
    assert warnings.showwarning is shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "fdaa:theta=1"], "did you mean 'fda'"),
        (["run", "fda:theta=-1"], "theta must be a finite number, at least 0, got -1"),
        (["run", "local_sgd", "--task", "digit"], "did you mean 'digits'"),
        (["run", "local_sgd", "--task", "mnist", "--model", "lenet"], "did you mean 'lenet5'"),
        (["run", "local_sgd", "-k", "0"], "workers must be at least 1"),
        (["run", "local_sgd", "-k", "100000"], "100000"),
        (["run", "local_sgd", "--task", "mnist", "--data", "nowhere"], "nowhere"),
        (["run", "local_sgd", "--partition", "sorted:2"], "sorted"),
        (["run", "local_sgd", "--partition", "dirichlett:2"], "did you mean 'dirichlet'"),
        (["run", "local_sgd", "--device", "cuda"], "no CUDA device"),
        (["run", "local_sgd", "--steps", "many"], "many"),
        (["run", "local_sgd", "--stepz", "3"], "--stepz"),
        (["run"], "one of the three"),
        (["run", "--resume", "nowhere"], "give the folder of a run"),
        (["report", "nowhere"], "give the folder of a run"),
        (["run", "local_sgd", "--steps", "1", "--out", "/proc/x"], "/proc/x: No such file"),
        (["compare"], "RECIPES"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(
    here: Here, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = here(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("tacit: error: ")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_liars_on_the_command_line(here: Here, tmp_path: Path) -> None:
    options = ("--workers", "5", "--steps", "10", "--out", "r")
    done = here("run", "monna:f=1", "--liars", "1", "--attack", "sign_flip", *options)
    assert done.returncode == 0, done.stderr
    assert "step 10/10" in done.stdout
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert (config["liars"], config["attack"], config["attack_trigger"]) == (1, "sign_flip", None)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("monna:f=1 --attack sign_flip", 2, "an attack needs workers that lie; give --liars too"),
        ("fda --attack-trigger inflate", 2, "give --liars too"),
        ("monna:f=1 --liars 4", 2, "4 of 5 workers lie; at least 2 must be honest"),
        ("monna:f=1 --liars -1", 2, "at least 1, not -1"),
        ("monna:f=1 --liars 1 --attack sing_flip", 2, "did you mean 'sign_flip'?"),
        ("monna:f=3", 2, "f=3"),
        ("fda:theta=1 --liars 1 --attack dissensus", 2, "such as monna; take another attack"),
        ("fda:theta=1 --liars 1 --attack-trigger label_flip", 2, "no labels to flip"),
        ("synchronous --liars 1 --attack nan", 1, "not finite at step 1"),
        ("monna:f=1 --liars 2 --attack nan", 2, "more than the 1 this rule stands"),
        ("no_sync --task digits-stream --liars 1", 2, "is a stream, where no worker can lie"),
    ],
)
def test_lies_that_are_refused(here: Here, arguments: str, code: int, message: str) -> None:
    done = here("run", *arguments.split(), "--workers", "5", "--steps", "3", "--out", "r")
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.startswith("tacit: error: ")
    assert done.stderr.count("\n") == 1


def test_diverging_run(here: Here, tmp_path: Path) -> None:
    done = here("run", "local_sgd", "--optimizer", "sgd:lr=1e30", "--out", "r")
    assert done.returncode == 1
    assert "not finite at step" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "not finite" in str(read_run(tmp_path / "r").summary["error"])


@pytest.mark.parametrize(("package", "extra"), [("plotly", "report"), ("rich", "cli")])
def test_missing_extra_is_named(tmp_path: Path, package: str, extra: str) -> None:
    hide = tmp_path / "hide"
    (hide / package).mkdir(parents=True)
    source = f"raise ModuleNotFoundError('no {package}', name='{package}')\n"
    (hide / package / "__init__.py").write_text(source)
    done = tacit(
        "run", "local_sgd", "--steps", "1", "--out", "r",
        cwd=tmp_path, environment={"PYTHONPATH": str(hide)},
    )  # fmt: skip
    assert done.returncode == 2
    assert f"pip install 'tacit[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_processes_and_torchrun_give_the_same_run(tmp_path: Path) -> None:
    options = ("fda:theta=0.1", "--steps", "40", "--deterministic", "--order", "resample")
    one = tacit("run", *options, "-k", "4", "--out", "one", cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    two = tacit("run", *options, "-k", "4", "--processes", "2", "--out", "two", cwd=tmp_path)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("step 40/40") == 1
    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4",
         "-m", "tacit", "run", *options, "--out", "four"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    runs = [read_run(tmp_path / name) for name in ("one", "two", "four")]
    assert runs[2].config["workers"] == 4
    for run in runs[1:]:
        for row, same in zip(run.rows, runs[0].rows, strict=True):
            for key in ("accuracy", "bytes", "synchronisations", "checks"):
                assert row[key] == same[key]


@pytest.mark.slow
def test_a_failure_in_one_process_ends_all(tmp_path: Path) -> None:
    done = tacit(
        "run", "local_sgd", "--optimizer", "sgd:lr=1e30", "--processes", "2", "--out", "r",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "not finite at step" in done.stderr
    assert not read_run(tmp_path / "r").summary["finished"]


@pytest.mark.slow
def test_killed_and_resumed(tmp_path: Path) -> None:
    """SIGKILL in mid-run; the resumed run ends like an undisturbed one."""
    options = ("fda:theta=0.1", "-k", "4", "--steps", "3000", "--evaluate-every", "300")
    whole = tacit("run", *options, "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "tacit", "run", *options, "--checkpoint-every", "50"]
    victim = subprocess.Popen([*command, "--out", "cut"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    latest = tmp_path / "cut" / "checkpoints" / "latest"
    deadline = time.monotonic() + 60
    while not latest.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    shared, _ = read_folder(latest.parent, [])
    assert 0 < shared["steps"] < 3000
    resumed = tacit("run", "--resume", "cut", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    ends = [read_run(tmp_path / name).rows for name in ("whole", "cut")]
    for row, same in zip(*ends, strict=True):
        for key in ("step", "accuracy", "loss", "bytes", "synchronisations", "checks"):
            assert row[key] == same[key]


def test_options_are_the_configuration() -> None:
    """Every option is a field of RunConfig and the other way round."""
    import dataclasses

    from tacit.cli.commands import run
    from tacit.config import RunConfig

    options = {parameter.name for parameter in run.params}
    fields = {field.name for field in dataclasses.fields(RunConfig)}
    assert options - fields == {"out", "config", "resume"}
    assert fields - options == {"options"}
    defaults = {f.name: f.default for f in dataclasses.fields(RunConfig)}
    for parameter in run.params:
        if parameter.name in fields - {"recipe", "workers"}:
            assert parameter.to_info_dict()["default"] in (defaults[parameter.name], None), (
                json.dumps(parameter.to_info_dict(), default=str)
            )
