"""What this extension adds to Metaflow; it only registers."""

STEP_DECORATORS_DESC = [("checkpoint", ".checkpoint.decorator.CheckpointDecorator")]

TL_PLUGINS_DESC = [
    ("CheckpointArtifact", ".checkpoint.artifact.CheckpointArtifact"),
    ("CheckpointException", ".checkpoint.errors.CheckpointException"),
]
