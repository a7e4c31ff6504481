"""Where the values of flags come from: the command line, the environment, presets, the file of the
user, and the defaults. All of it follows from the parsers; nothing else lists flags."""
