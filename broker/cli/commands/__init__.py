"""The commands, one module per group. Each module is light; what a command needs is loaded when it runs."""
