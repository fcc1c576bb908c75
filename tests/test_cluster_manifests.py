"""Files for training in a cluster: the Job of Kubernetes, the script of Slurm, what they run."""

import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from cnnkit import __version__
from cnnkit.cli.arguments import apply_overrides
from cnnkit.cli.main import build_parser
from cnnkit.recipes import find_recipe
from cnnkit.run_folder import RunFolder
from tests.helpers.manifests import check_few_rights

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
NAME = "cnnkit-train"
# Appends its words to a file, then behaves as its environment says.
RECORD = """#!/bin/bash
printf '%s\\n' "$(printf '%q ' "$@")" >> "$RECORDED"
"""
# Slurm's srun for two tasks on this machine, which ends both if one fails.
SRUN = """#!/usr/bin/env python3
import os, signal, subprocess, sys, time
words = [word for word in sys.argv[1:]]
while words[0].startswith("--"):
    words.pop(0)
tasks = [subprocess.Popen(words, env={**os.environ, "SLURM_PROCID": str(i)}) for i in (0, 1)]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
while all(task.poll() in (None, 0) for task in tasks) and None in [t.poll() for t in tasks]:
    time.sleep(0.02)
bad = next((task.returncode for task in tasks if task.returncode), 0)
for task in tasks:
    if bad and task.poll() is None and not os.environ.get("ALL_END"):
        task.kill()
    task.wait()
sys.exit(128 - bad if bad < 0 else bad)
"""
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then printf 'a1\\na2\\n'; exit; fi
echo "$@" >> "$RECORDED.scontrol"
"""


def manifest(name):
    return yaml.safe_load((CLUSTER / name).read_text())


def pod():
    return manifest("job.yaml")["spec"]["template"]


def container():
    [found] = pod()["spec"]["containers"]
    return found


def environment_of_job(index):
    """The variables that Kubernetes gives the container of one index."""
    values = {}
    for one in container()["env"]:
        if "value" not in one:
            path = one["valueFrom"]["fieldRef"]["fieldPath"]
            assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
        text = one.get("value", str(index))
        for name, value in values.items():
            text = text.replace(f"$({name})", value)
        values[one["name"]] = text
    return values


def program(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path):
    """A folder of programs, and the environment in which they are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    environment = {
        **os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "RECORDED": str(tmp_path / "words")
    }  # fmt: skip
    return folder, environment


def recorded(environment):
    """The command lines that the program in the place of `cnnkit` was started with."""
    return [shlex.split(line) for line in Path(environment["RECORDED"]).read_text().splitlines()]


def parsed(words):
    """The options of `cnnkit train`, whose values are checked as when it starts."""
    assert words[0] == "train"
    args = build_parser(commands=["train"]).parse_args(words)
    config = apply_overrides(find_recipe(args.recipe).config, args)
    assert config.strategy == "multiworker"
    return args, config


def test_the_manifests_belong_together():
    kinds = {}
    for name in manifest("kustomization.yaml")["resources"]:
        document = manifest(name)
        kinds[document["kind"]] = document["spec"]
        assert document["metadata"]["name"] == NAME
    assert set(kinds) == {"Job", "Service", "NetworkPolicy"}
    labels = pod()["metadata"]["labels"]
    assert kinds["Service"]["selector"] == labels
    assert kinds["NetworkPolicy"]["podSelector"]["matchLabels"] == labels
    # Without a cluster address, each pod has a name; before it is ready, too.
    assert kinds["Service"]["clusterIP"] == "None"
    assert kinds["Service"]["publishNotReadyAddresses"] is True
    [rule] = kinds["NetworkPolicy"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": labels}}]
    [port] = container()["ports"]
    assert [one["port"] for one in rule["ports"]] == [port["name"]]
    assert port["containerPort"] == 2222


def test_the_job_starts_a_pod_for_each_index_again():
    spec = manifest("job.yaml")["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 2
    # A policy for failed pods needs new pods.
    assert pod()["spec"]["restartPolicy"] == "Never"
    wrong, lost = spec["podFailurePolicy"]["rules"]
    assert wrong["action"] == "FailJob"
    assert wrong["onExitCodes"] == {
        "containerName": container()["name"], "operator": "In", "values": [2]
    }  # fmt: skip
    assert lost == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    assert spec["backoffLimit"] >= 2 * spec["completions"]


def test_the_pods_have_few_rights_and_keep_the_run():
    spec = pod()["spec"]
    check_few_rights(spec)
    assert container()["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container()["image"] == f"cnnkit-gpu:{__version__}"
    mounts = {mount["name"]: mount for mount in container()["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in spec["volumes"]}
    environment = environment_of_job(0)
    assert environment["RUN"].startswith(mounts["runs"]["mountPath"] + "/")
    assert environment["HOME"] == mounts["tmp"]["mountPath"]
    assert mounts["datasets"]["readOnly"]


def test_the_workers_find_each_other_by_the_index():
    """The name of a pod of an Indexed Job is that of the job and its index, below the service."""
    from cnnkit.training.cluster import cluster_resolver

    count = manifest("job.yaml")["spec"]["completions"]
    assert pod()["spec"]["subdomain"] == manifest("service.yaml")["metadata"]["name"]
    addresses = [f"{NAME}-{i}.{NAME}:2222" for i in range(count)]
    for index in range(count):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TF_CONFIG", environment_of_job(index)["TF_CONFIG"])
            resolver = cluster_resolver()
        assert (resolver.task_type, resolver.task_id) == ("worker", index)
        assert resolver.cluster_spec().as_dict() == {"worker": addresses}


@pytest.mark.parametrize("begun", [False, True])
def test_the_command_of_a_pod_is_taken(programs, tmp_path, begun):
    folder, environment = programs
    program(folder, "cnnkit", RECORD)
    environment |= {**environment_of_job(1), "RUN": str(tmp_path / "run")}
    if begun:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.json").touch()
    command = [*container()["command"], *container()["args"]]
    subprocess.run(command, env=environment, check=True, timeout=60)
    [words] = recorded(environment)
    # The option is checked with the folder, which is in a volume.
    place = words.index("--dataset=folder:/data/cifar10")
    assert "/data" in {mount["mountPath"] for mount in container()["volumeMounts"]}
    args, config = parsed([*words[:place], "--dataset=digits", *words[place + 1 :]])
    assert args.resume is begun
    assert (args.output, args.recipe) == (str(tmp_path / "run"), "cifar10-full")
    assert args.worker_timeout == 900
    assert args.workers is args.worker_index is None
    assert config.checkpoint_every == "500"


def slurm(programs, tmp_path, cnnkit, **more):
    """Starts the script of Slurm with programs in the place of Slurm's and of `cnnkit`."""
    folder, environment = programs
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("cnnkit", RECORD + cnnkit)):
        program(folder, name, text)
    environment |= {
        "SLURM_JOB_ID": "1234", "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_JOB_NAME": NAME,
        "RUN": str(tmp_path / "run"), **more,
    }  # fmt: skip
    command = ["/bin/bash", CLUSTER / "train.sbatch", "--recipe=cifar10-full", "--seed=3"]
    with (tmp_path / "log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def test_slurm_starts_every_worker_again_after_a_failure(programs, tmp_path):
    begin = 'mkdir -p "$RUN"; [ -e "$RUN/config.json" ] && exit 0\nsleep 0.5; '
    process = slurm(programs, tmp_path, f'{begin} touch "$RUN/config.json"; exit 1\n', ALL_END="1")
    assert process.wait(60) == 0, (tmp_path / "log").read_text()
    words = [parsed(one)[0] for one in recorded(programs[1])]
    assert [one.resume for one in words] == [False, False, True, True]
    for pair in (words[:2], words[2:]):
        assert {one.worker_index for one in pair} == {0, 1}
        assert {one.workers for one in pair} == {"a1:21234,a2:21234"}
        assert {one.output for one in pair} == {str(tmp_path / "run")}
        assert {one.seed for one in pair} == {3}


@pytest.mark.parametrize(("code", "attempts"), [(1, 3), (2, 1), (143, 1)])
def test_slurm_gives_up(programs, tmp_path, code, attempts):
    process = slurm(programs, tmp_path, f"exit {code}\n", ATTEMPTS="3", ALL_END="1")
    assert process.wait(60) == code
    assert len(recorded(programs[1])) == 2 * attempts


def test_slurm_queues_the_job_again_before_its_time_is_over(programs, tmp_path):
    save = f"trap 'touch {tmp_path}/saved.$$; exit 143' TERM\nsleep 60 & wait\n"
    process = slurm(programs, tmp_path, save, ALL_END="1")
    words = Path(programs[1]["RECORDED"])
    end = time.monotonic() + 30
    while time.monotonic() < end and not (words.exists() and len(recorded(programs[1])) == 2):
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 0, (tmp_path / "log").read_text()
    assert len(list(tmp_path.glob("saved.*"))) == 2
    assert Path(f"{words}.scontrol").read_text() == "requeue 1234\n"


def test_the_script_of_slurm_is_a_script():
    file = CLUSTER / "train.sbatch"
    lines = file.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    # sbatch reads options up to the first command.
    options = [line for line in lines if line.startswith("#SBATCH ")]
    assert lines[1 : len(options) + 1] == options
    assert "#SBATCH --signal=B:USR1@180" in options
    assert stat.S_IMODE(file.stat().st_mode) & 0o600 == 0o600


class Pods:
    """Two pods of the Job on this machine: its command, with other addresses and other args."""

    def __init__(self, folder, args):
        self._folder, self._args = folder, args
        with socket.socket() as one, socket.socket() as two:
            for opened in (one, two):
                opened.bind(("127.0.0.1", 0))
            self._ports = [opened.getsockname()[1] for opened in (one, two)]
        self._bin = folder / "bin"
        self._bin.mkdir(parents=True)
        program(self._bin, "cnnkit", f'#!/bin/bash\nexec {sys.executable} -m cnnkit "$@"\n')
        self.run = RunFolder(folder / "run")
        self.restarts = 0

    def start(self, index):
        values = environment_of_job(index)
        for i, port in enumerate(self._ports):
            values["TF_CONFIG"] = values["TF_CONFIG"].replace(
                f"{NAME}-{i}.{NAME}:2222", f"127.0.0.1:{port}"
            )
        assert NAME not in values["TF_CONFIG"]
        json.loads(values["TF_CONFIG"])
        environment = {
            **os.environ, **values, "RUN": str(self.run.path), "HOME": str(self._folder),
            "PATH": f"{self._bin}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        with (self._folder / f"{index}.log").open("ab") as log:
            return subprocess.Popen(
                [*container()["command"], *self._args], env=environment, stdout=log, stderr=log
            )

    def log(self):
        return "".join((self._folder / f"{i}.log").read_text() for i in (0, 1))

    def complete(self, kill=None):
        """Starts both, and each of them again until it ends well, as the Job does.

        Args:
            kill: The index of a worker to kill with -9 in the middle of the training.
        """
        pods = [self.start(0), self.start(1)]
        end = time.monotonic() + 300
        while any(pod.poll() != 0 for pod in pods):
            assert time.monotonic() < end, self.log()
            if kill is not None and list(self.run.checkpoints.glob("step-*.npz")):
                pods[kill].kill()
                kill = None
            for i in (0, 1):
                if pods[i].poll() not in (None, 0):
                    self.restarts += 1
                    assert self.restarts < 8, self.log()
                    pods[i] = self.start(i)
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_that_is_killed_is_replaced_and_the_result_is_the_same(tmp_path):
    import keras

    args = ["--recipe=demo", "--epochs=4", "--checkpoint-every=3"]
    whole, broken = (Pods(tmp_path / name, args) for name in ("whole", "broken"))
    whole.complete()
    assert whole.restarts == 0
    broken.complete(kill=1)
    assert broken.restarts >= 2
    assert "going on with epoch" in broken.log()
    assert "no longer answers" in broken.log()
    found = [keras.saving.load_model(one.run.model_file).get_weights() for one in (whole, broken)]
    for expected, weights in zip(*found, strict=True):
        np.testing.assert_allclose(weights, expected, atol=1e-5)
    losses = [[epoch["loss"] for epoch in one.run.metrics] for one in (whole, broken)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
