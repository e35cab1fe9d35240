"""Names of this extension in ``metaflow``; a name here is ours also beside an extension that is loaded before."""

toplevel = "checkpoint_names"
