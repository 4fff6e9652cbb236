"""From recordings as they are to features and emotions: the only room that uses preparation and encoders together."""

# The commands in the order of the help, each the module of its name with a `COMMAND` in it.
COMMANDS = ("extract", "predict", "serve")
