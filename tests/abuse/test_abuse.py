"""A server answers hostile requests of every API with the right codes, and goes on."""

import shutil

import pytest

from cnnkit.server import EmbeddedServer, ServerLimits
from tests.abuse import attack, hostile
from tests.abuse.__main__ import main

pytest.importorskip("aiohttp")


def test_requests_depend_on_the_seed_alone():
    bodies = hostile.valid_bodies()
    first, again, other = (hostile.http_request(hostile.seeded(n), bodies) for n in (1, 1, 2))
    assert first == again != other
    assert hostile.raw_http(hostile.seeded(1)) == hostile.raw_http(hostile.seeded(1))


@pytest.fixture(scope="module")
def server(colors_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("abuse") / "colors"
    shutil.copytree(colors_folder / "2", folder / "2")
    limits = ServerLimits(receive_timeout_seconds=2)
    with EmbeddedServer({"colors": folder}, limits=limits, rest_port=0) as started:
        yield started


def test_some_hostile_requests(server, caplog):
    run = attack.Attack(server.address, server.rest_address, 300, seed=5, threads=2)
    run.run()
    assert (run.bad, run.wrong) == ({}, 0)
    assert run.answers.total() == 300 and not caplog.records
    # Some of the changed requests are still right.
    for seen in (("HTTP", "200"), ("HTTP", "400"), ("gRPC", "OK"), ("gRPC", "INVALID_ARGUMENT")):
        assert run.answers[seen]
    assert run.answers["raw", "400"] and run.answers["raw", "several, in order"]


def test_connections_that_never_end_a_request_are_ended(server):
    ends = attack.SlowConnections(server.rest_address, 2, pause=0.2).wait()
    assert sorted({end[:2] for end in ends}) == [("body", "408"), ("head", "closed")]
    assert all(1.5 < seconds < 10 for _, _, seconds in ends)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_goes_on(capfd):
    assert main(["--requests", "3000", "--seed", "7"]) == 0, capfd.readouterr().out
