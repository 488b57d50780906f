"""What trackers were told is read back from them: event files, a server, a database, a file."""

import csv
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from finetune.components import trackers
from finetune.errors import MissingExtraError
from finetune.pipeline import Run, run
from finetune.plan import plan
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe
from finetune.train.events import EpochEnded, Event, Warned

pytestmark = pytest.mark.slow  # each test trains

Make = Callable[..., Recipe]
STAGES = (
    {"name": "head", "train": "head", "solver": "probe"},
    {"name": "full", "train": "all", "epochs": 3, "lr": 1e-3},
)
NUM_EPOCHS = 4
WATCHED = Path(__file__).with_name("watched.py")
SERVER_STARTS_SECONDS = 120.0  # it takes ten on an idle machine


class Ended(BaseException):
    """Ends a run as nothing in it expects."""


@pytest.fixture
def make(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A function (trackers) that makes a short recipe which tells them."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)

    def recipe(*to: object, **values: Any) -> Recipe:
        given: dict[str, Any] = {
            "model": {"backbone": "test_resnet", "pretrained": False},
            "data": {"path": str(tiny_folder)},
            "augment": "light",
            "stages": STAGES,
            "training": {"batch_size": 8},
            "runtime": {"precision": "fp32", "device": "cpu", "workers": 0, "checkpoint_share": 1},
            "track": {"to": list(to)},
        }
        return load_recipe({**given, **values})

    return recipe


def end_in(recipe: Recipe, out: Path, *, epochs: int) -> None:
    """Begin a run and end it when so many epochs are over."""
    left = epochs

    def end(event: Event) -> None:
        nonlocal left
        left -= isinstance(event, EpochEnded)
        if left < 0:
            raise Ended

    with pytest.raises(Ended):
        run(recipe, out=out, on_event=end)


def history(done: Run) -> list[dict[str, str]]:
    with (done.folder / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def warnings_of(told: list[Event]) -> list[str]:
    return [event.message for event in told if isinstance(event, Warned)]


def read_events(folder: Path) -> Any:
    """Let TensorBoard read its event files."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    events = accumulator.EventAccumulator(str(folder / "tracking" / "tensorboard"))
    events.Reload()
    return events


def test_tensorboard_shows_curves_figures_recipe_and_chart(make: Make, tmp_path: Path) -> None:
    done = run(make("tensorboard"), out=tmp_path / "run")
    events = read_events(done.folder)
    curve = events.Scalars("val_accuracy")
    assert [point.step for point in curve] == [1, 2, 3, 4]
    rows = history(done)
    assert [point.value for point in curve] == pytest.approx(
        [float(row["val_accuracy"]) for row in rows]
    )  # TensorBoard keeps 32 bits
    assert [point.step for point in events.Scalars("train_loss")] == [1, 2, 3, 4]
    (accuracy,) = events.Scalars("test/accuracy")
    assert accuracy.value == pytest.approx(done.results["test"].figures.accuracy)
    assert {"test/accuracy_low", "test_classes/blue/recall", "val/macro_f1"} <= set(
        events.Tags()["scalars"]
    )
    (text,) = events.Tensors("recipe.yaml/text_summary")
    assert b"backbone: test_resnet" in text.tensor_proto.string_val[0]
    (chart,) = events.Images("confusion_matrix")
    drawn = (done.folder / "plots" / "confusion_matrix.png").read_bytes()
    with (
        Image.open(BytesIO(chart.encoded_image_string)) as shown,
        Image.open(BytesIO(drawn)) as own,
    ):
        assert shown.tobytes() == own.convert("RGB").tobytes()
    (values,) = (done.folder / "tracking" / "tensorboard").glob("*/hparams.yml")
    assert "stages.1.lr: 0.001" in values.read_text()


def test_a_resumed_run_goes_on_in_the_same_curve(make: Make, tmp_path: Path) -> None:
    end_in(make("tensorboard"), tmp_path / "run", epochs=2)
    done = run(make("tensorboard"), out=tmp_path / "run", resume=True)
    assert len(list((done.folder / "tracking" / "tensorboard").glob("events.*"))) == 2
    steps = [point.step for point in read_events(done.folder).Scalars("val_loss")]
    assert steps == [1, 2, 3, 4]


def test_a_tracker_changes_no_figure(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    told, alone = run(make("tensorboard"), out=tmp_path / "a"), run(make(), out=tmp_path / "b")
    texts = [(done.folder / "predictions.csv").read_bytes() for done in (told, alone)]
    assert texts[0] == texts[1]
    assert not (alone.folder / "tracking").exists()


def test_a_plan_without_the_library_ends_before_it_looks_at_the_data(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    recipe = make("mlflow", data={"path": str(tmp_path / "not_even_looked_at")})
    with pytest.raises(MissingExtraError) as caught:
        plan(recipe)
    assert caught.value.hint == 'pip install "finetune-vision[mlflow]"'
    assert caught.value.exit_code == 7


@dataclass(frozen=True)
class Server:
    """A server of MLflow on this machine."""

    uri: str
    process: "subprocess.Popen[bytes]"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def is_up(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A real MLflow server with a database and a folder of artifacts of its own."""
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("flask_cors", reason="what MLflow's server needs is not installed")
    port, place = free_port(), tmp_path / "server"
    place.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    stores = ["--backend-store-uri", f"sqlite:///{place / 'mlflow.db'}", "--workers", "1"]
    artifacts = ["--artifacts-destination", str(place / "artifacts")]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *stores, *artifacts], cwd=place, env=environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        ends = time.monotonic() + SERVER_STARTS_SECONDS
        while not is_up(port) and process.poll() is None and time.monotonic() < ends:
            time.sleep(0.2)
        assert is_up(port), (place / "log").read_text()[-2000:]
        yield Server(f"http://127.0.0.1:{port}", process)
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server and the processes that it started."""
    if process.poll() is None:
        os.killpg(process.pid, 15)
    process.wait(timeout=60)


def find_run(uri: str) -> tuple[Any, Any]:
    """Give the only run of the experiment, and the client that found it."""
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("finetune")
    (found,) = client.search_runs([experiment.experiment_id])
    return client, found


def test_a_server_of_mlflow_has_recipe_curves_figures_and_files(
    make: Make, tmp_path: Path, server: Server
) -> None:
    done = run(make({"kind": "mlflow", "uri": server.uri}), out=tmp_path / "run")
    client, found = find_run(server.uri)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["model.backbone"] == "test_resnet"
    assert found.data.params["stages.1.lr"] == "0.001"
    assert found.data.metrics["test/accuracy"] == done.results["test"].figures.accuracy
    assert "test_classes/red/f1" in found.data.metrics
    curve = client.get_metric_history(found.info.run_id, "val_accuracy")
    assert [point.step for point in curve] == [1, 2, 3, 4]
    assert [point.value for point in curve] == [float(row["val_accuracy"]) for row in history(done)]
    names = {one.path for one in client.list_artifacts(found.info.run_id)}
    assert {"recipe.yaml", "metrics.json", "report.html", "per_class.csv", "plots"} <= names
    copy = client.download_artifacts(found.info.run_id, "metrics.json", str(tmp_path))
    assert Path(copy).read_bytes() == (done.folder / "metrics.json").read_bytes()
    (chart,) = client.list_artifacts(found.info.run_id, "plots")
    assert chart.path == "plots/confusion_matrix.png"


def test_a_resumed_run_is_the_same_run_of_mlflow(
    make: Make, tmp_path: Path, server: Server
) -> None:
    recipe = make({"kind": "mlflow", "uri": server.uri})
    end_in(recipe, tmp_path / "run", epochs=2)
    assert find_run(server.uri)[1].info.status == "FAILED"
    run(recipe, out=tmp_path / "run", resume=True)
    client, found = find_run(server.uri)
    assert found.info.status == "FINISHED"
    curve = client.get_metric_history(found.info.run_id, "val_loss")
    assert [point.step for point in curve] == [1, 2, 3, 4]


def test_a_server_that_goes_away_is_warned_of_and_the_run_goes_on(
    make: Make, tmp_path: Path, server: Server
) -> None:
    told: list[Event] = []

    def listen(event: Event) -> None:
        told.append(event)
        if isinstance(event, EpochEnded) and event.stage == "full" and event.epoch == 2:
            stop(server.process)

    begun = time.monotonic()
    done = run(make({"kind": "mlflow", "uri": server.uri}), out=tmp_path / "run", on_event=listen)
    (warning,) = [one for one in warnings_of(told) if "mlflow" in one]
    assert warning.startswith("mlflow is told no more of this run, which goes on: ")
    assert len(history(done)) == NUM_EPOCHS
    assert (done.folder / "report.html").is_file()
    assert time.monotonic() - begun < 90  # MLflow's own retries take four minutes a call


def test_a_server_that_was_never_there_is_warned_of_once(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    told: list[Event] = []
    recipe = make({"kind": "mlflow", "uri": f"http://127.0.0.1:{free_port()}"}, stages=STAGES[:1])
    done = run(recipe, out=tmp_path / "run", on_event=told.append)
    assert len([one for one in warnings_of(told) if "mlflow" in one]) == 1
    assert done.results["test"].figures.accuracy > 0


def test_without_a_server_mlflow_keeps_a_database_in_the_run(make: Make, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
    done = run(make("mlflow", stages=STAGES[:1]), out=tmp_path / "run")
    assert not mlflow.is_tracking_uri_set()
    assert mlflow.active_run() is None
    client, found = find_run(f"sqlite:///{done.folder / 'tracking' / 'mlflow.db'}")
    assert found.data.metrics["test/accuracy"] == done.results["test"].figures.accuracy
    assert "report.html" in {one.path for one in client.list_artifacts(found.info.run_id)}


def test_a_run_within_a_run_of_mlflow_is_its_part(make: Make, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
    uri = f"sqlite:///{tmp_path / 'mine.db'}"
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.create_experiment("mine", artifact_location=str(tmp_path / "files"))
    with mlflow.start_run(experiment_id=experiment) as outer:
        run(make("mlflow", stages=STAGES[:1]), out=tmp_path / "run")
        assert mlflow.active_run().info.run_id == outer.info.run_id
    mlflow.set_tracking_uri(None)
    client = mlflow.MlflowClient(tracking_uri=uri)
    assert client.get_experiment_by_name("finetune") is None
    found = client.search_runs([experiment])
    (part,) = [one for one in found if one.info.run_id != outer.info.run_id]
    assert part.data.tags["mlflow.parentRunId"] == outer.info.run_id


def read_records(file: Path) -> Iterator[Any]:
    """Read the records of a file of Weights & Biases: the log format of LevelDB behind 7 bytes."""
    protocol = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="wandb is missing")
    content, place, parts = file.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while place + 7 <= len(content):
        room = 32_768 - place % 32_768
        if room < 7:  # what is left of a block holds no header
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        if place + 7 + length > len(content):
            return  # the rest is not written yet
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = protocol.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def wait_until_written(file: Path) -> None:
    """Wait for the last record, which a process beside this one writes."""
    ends = time.monotonic() + 30
    while time.monotonic() < ends and not any(one.HasField("exit") for one in read_records(file)):
        time.sleep(0.1)


def read_wandb(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """Give recipe, rows of figures and names of files of the runs of Weights & Biases."""
    values: dict[str, Any] = {}
    rows, files = [], []
    for file in sorted((folder / "tracking" / "wandb").glob("offline-*/run-*.wandb")):
        wait_until_written(file)
        for record in read_records(file):
            for update in (*record.config.update, *record.run.config.update):
                name = update.key or ".".join(update.nested_key)
                values[name] = json.loads(update.value_json)
            items = record.history.item
            if items:
                rows.append(
                    {
                        item.key or "/".join(item.nested_key): json.loads(item.value_json)
                        for item in items
                    }
                )
            files += [one.path for one in record.files.files]
    return values, rows, files


def test_weights_and_biases_keeps_a_file_where_nobody_is_logged_in(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    done = run(make("wandb"), out=tmp_path / "run")
    values, rows, files = read_wandb(done.folder)
    assert values["model.backbone"] == "test_resnet"
    assert values["stages.1.lr"] == 0.001
    curve = {row["_step"]: row["val_accuracy"] for row in rows if "val_accuracy" in row}
    told = [float(row["val_accuracy"]) for row in history(done)]
    assert curve == dict(zip((1, 2, 3, 4), told, strict=True))
    (accuracy,) = [row["test/accuracy"] for row in rows if "test/accuracy" in row]
    assert accuracy == done.results["test"].figures.accuracy
    assert [row["confusion_matrix/count"] for row in rows if "confusion_matrix/count" in row] == [1]
    assert {"recipe.yaml", "metrics.json", "report.html"} <= set(files)


def test_a_resumed_run_has_the_same_name_at_weights_and_biases(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    end_in(make("wandb"), tmp_path / "run", epochs=2)
    time.sleep(1.1)  # its folders are named by the second
    done = run(make("wandb"), out=tmp_path / "run", resume=True)
    parts = sorted((done.folder / "tracking" / "wandb").glob("offline-*/run-*.wandb"))
    assert (len(parts), len({part.name for part in parts})) == (2, 1)
    _, rows, _ = read_wandb(done.folder)
    assert [row["_step"] for row in rows if "val_loss" in row] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["mlflow", "tensorboard", "wandb"])
def test_no_network_is_asked_for_and_the_terminal_stays_as_it_was(
    tiny_folder: Path, tmp_path: Path, name: str
) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    log, ours = tmp_path / "log", ("MLFLOW_", "WANDB_", "PYTEST_", "CI")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    arguments = ["--data", str(tiny_folder), "--recipe", "probe", "--backbone", "test_resnet"]
    options = ["--no-pretrained", "--device", "cpu", "--set", f"track.to=[{name}]"]
    command = [sys.executable, str(WATCHED), str(log), "run", *arguments, *options]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], cwd=tmp_path, capture_output=True, text=True,
        env={**kept, "HOME": str(tmp_path)}, check=True,
    )  # fmt: skip
    assert name not in done.stdout + done.stderr, done.stderr
    assert not log.exists(), log.read_text()
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "cache", ".cache", ".config"}
    assert len(list((tmp_path / "run" / "tracking").iterdir())) >= 2
