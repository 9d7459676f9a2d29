"""The `rankline` command: one package per group of commands, one file per command or group of subcommands."""
