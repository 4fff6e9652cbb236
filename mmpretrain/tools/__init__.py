"""What looks at recipes, a corpus, a run, a store or a file and changes nothing in it."""

# The commands in the order of the help, each the module of its name, with _ for - and blanks, with a `COMMAND` in it.
COMMANDS = (
    "recipes",
    "recipes show",
    "recipes copy",
    "doctor",
    "status",
    "plan",
    "replay",
    "compare",
    "targets inspect",
    "import-avhubert",
)
