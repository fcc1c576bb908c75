"""An estimate of a training with round numbers."""

from cnnkit.training import TrainingEstimate

# 10,010 steps of 0.5 s, 50,000 images of 2 ms, and a checkpoint of 3 s at the end of each epoch.
ESTIMATE = TrainingEstimate(
    training_images=1_281_167,
    held_out_images=50_000,
    classes=1000,
    batch_size=128,
    epochs=90,
    step_seconds=0.5,
    step_spread=(0.4, 0.6),
    steps=96,
    validation_seconds=0.002,
    start_seconds=7.0,
    mean_seconds=0.001,
    checkpoint_seconds=3.0,
    checkpoint_every=None,
    memory_bytes=10**9,
    disk_bytes=10**9,
)
