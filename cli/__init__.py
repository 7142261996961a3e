"""The command `pretrain`."""
