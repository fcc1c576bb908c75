"""The thread that polls."""

import threading

from cnnkit.server.poller import Poller


def test_an_error_does_not_end_the_thread(caplog):
    polled, calls = threading.Event(), []

    def poll():
        calls.append(1)
        if len(calls) == 2:
            polled.set()
        raise OSError("the folder is gone")

    poller = Poller(poll, 0.001)
    poller.start()
    assert polled.wait(30)
    poller.stop()
    assert caplog.records[0].getMessage() == "The model folders could not be polled"
