"""The command `loss_landscape`: looks at what the Writer wrote."""
