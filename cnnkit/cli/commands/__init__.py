"""The commands of `cnnkit`, one module each. Modules of subcommands begin with an underscore."""
