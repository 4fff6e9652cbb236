"""What a recipe's run is made of: one module a stage, and the walks over several."""

# The commands in the order of the help, each the module of its name with a `COMMAND` in it.
COMMANDS = (
    "run",
    "refine",
    "targets",
    "pretrain",
    "finetune",
    "evaluate",
    "label-efficiency",
    "units",
    "folds",
    "crossval",
    "adapt",
    "retrieve",
    "probe",
    "layers",
    "robustness",
    "export",
    "report",
)
