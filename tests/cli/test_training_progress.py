"""The bar and the lines of a training."""

import io
import sys

from cnnkit.cli.training_progress import TerminalProgress


def test_the_bar_shows_speed_loss_and_the_time_to_come(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = TerminalProgress(io.StringIO())
    for step in (1, 2):
        progress.on_train_batch_end(1, step, 3, 50, 1.25)
        progress._bar.refresh()
    text = terminal.getvalue()
    assert "100/150" in text
    assert "images/s" in text
    assert "loss 1.250" in text
    progress.close()
